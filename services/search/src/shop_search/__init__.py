"""The shop's search service: finds articles by what people type, in an index that follows the events."""
