"""The schema of settings files: fields, documents, JSON Schema and diagnostics.

May import the ground and the rooms before settings.
Entry points: `documents.parse_document`, `documents.ClassroomDocument`.
"""
