"""The numbers the card-fraud handbook prints, made again through the stream."""
