"""The orchestrator's schema as numbered SQL files, applied in order by the chassis when a replica starts."""
