"""Files that simulators and tests share: captures of real engines, and a certificate for localhost."""

from pathlib import Path
from typing import Final

__all__ = ["CAPTURES", "CERTIFICATE"]

_DATA: Final = Path(__file__).parent / "data"

CAPTURES: Final = _DATA / "captures"
# Certificate and key in one file.
CERTIFICATE: Final = _DATA / "tls" / "localhost.pem"
