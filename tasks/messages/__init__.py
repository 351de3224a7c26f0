"""Every record that crosses a process: worker and engine, journal, registry. Plain dataclasses, no behaviour."""
