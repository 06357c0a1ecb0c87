"""Signatures of bundles in the format of OpenSSF Model Signing (OMS) 1.0, by key or certificate: docs/signing.md."""
