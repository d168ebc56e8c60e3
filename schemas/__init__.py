"""Shapes: Avro schemas and their columnar codec, field rules, feature sets, and the tree of errors."""
