"""The student's workplace: their copy of the lessons, the JupyterLab that opens it, and its health.

One module decides one thing: `delivery` which version of a lesson a student has, `server` how JupyterLab runs
without touching the user's own Jupyter, `health` whether this machine can do what the course asks of it.
"""
