"""What every service needs: server, clients, errors, telemetry, settings, database."""
