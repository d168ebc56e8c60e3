"""The columnar codec: Avro bytes to columns and columns to Avro bytes."""

from schemas.decode import Body, Decoded, Decoder
from schemas.encode import Encoder
from schemas.framing import Framing

__all__ = ["Body", "Decoded", "Decoder", "Encoder", "Framing"]
