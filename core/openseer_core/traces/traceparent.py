"""The header field `traceparent` of W3C Trace Context: the caller's span."""

import re
from dataclasses import dataclass

_FORM = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(-.*)?"
)
_SAMPLED = 0x01


@dataclass(frozen=True, slots=True)
class TraceParent:
    """A caller's span. `sampled`: whether its trace is recorded; if not, spans below it are not recorded either."""

    trace_id: int
    span_id: int
    sampled: bool = True

    @staticmethod
    def parse(text: str | None) -> "TraceParent | None":
        """Parses the field; None if it is missing or malformed. W3C requires that a malformed field is ignored."""
        found = _FORM.fullmatch(text) if text is not None else None
        if found is None or found["version"] == "ff" or (found["version"] == "00" and found[5] is not None):
            return None
        trace, span = int(found["trace"], 16), int(found["span"], 16)
        if not trace or not span:
            return None
        return TraceParent(trace, span, bool(int(found["flags"], 16) & _SAMPLED))

    def __str__(self) -> str:
        """The field's text, in version 00."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"
