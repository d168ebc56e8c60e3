"""The columnar codec: Avro bytes to columns and columns to Avro bytes."""

from schemas.decode import Decoded, Decoder, Framing
from schemas.encode import Encoder

__all__ = ["Decoded", "Decoder", "Encoder", "Framing"]
