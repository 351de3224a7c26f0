"""Drafts: tokens that a step checks although no row has drawn them yet."""
