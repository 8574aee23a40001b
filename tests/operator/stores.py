"""Access of the tests' operator and gateway to stores: a played key and the permitted test addresses."""

from collections.abc import Mapping

from openseer_process.store_access import StoreAccess
from tests.repository import ROOT

KEYS = ROOT / "tests/operator/store-keys"
ACCESS = StoreAccess(KEYS, readers=("system:openseer", "system:openseer-api"))
"""Any host."""
ENVIRONMENT: Mapping[str, str] = {"OPENSEER_STORE_KEYS": str(KEYS), "OPENSEER_STORE_HOSTS": "unix,127.0.0.0/8"}
"""Of a whole process."""
