"""Builders, fakes and fixtures for real servers. Only tests import it.

The fixtures come with the pytest plugin `amends_testkit.plugin`: no suite imports them. Nothing is imported here,
because the plugin is loaded by every run of pytest: take `FakeParticipant` from `amends_testkit.participant`,
`ScriptedAnswer` from `amends_testkit.answers`, `eventually` from `amends_testkit.waiting`.
"""
