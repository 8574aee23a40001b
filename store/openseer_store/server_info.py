"""What a Redis server says of itself."""


def read_info(text: bytes | str) -> dict[str, str]:
    """The fields of a reply to INFO."""
    lines = (text.decode() if isinstance(text, bytes) else text).splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)
