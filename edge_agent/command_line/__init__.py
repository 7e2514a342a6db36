"""The words of `edge-agent`: commands that ask a running agent, and the bench-top."""
