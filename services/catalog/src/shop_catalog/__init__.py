"""The shop's catalog service: articles with descriptions, pictures, categories and prices."""
