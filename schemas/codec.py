"""The columnar codec: Avro bytes to columns and columns to Avro bytes."""

from schemas.decode import Decoded, Decoder, Framing

__all__ = ["Decoded", "Decoder", "Framing"]
