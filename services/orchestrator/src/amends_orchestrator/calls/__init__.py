"""The call path: any unary method of any participant, as bytes, under the policies in force."""
