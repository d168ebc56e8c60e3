"""Columns to columns: fixed point, derived columns, windows and the state behind them."""
