"""ZKTeco ADMS / PUSH: the terminal calls us over HTTP; attendance push 2.x and security push 3.x."""
