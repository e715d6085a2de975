"""The shop's shipping service: carrier slots and parcels."""
