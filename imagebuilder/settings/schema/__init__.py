"""The schema of settings files: fields, documents, JSON Schema and diagnostics.

May import the ground and the rooms before settings.
Entry points: `documents.ClassroomDocument`, `json_schema`.
"""
