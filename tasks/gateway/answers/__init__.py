"""Answers under way: sent, followed, streamed, resumed, counted and cancelled."""
