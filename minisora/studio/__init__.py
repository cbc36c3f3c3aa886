"""A workshop in the browser: a queue of videos that outlives the tab and the server, a gallery, and one worker.

Two processes share a folder. The server (`run_studio`, `studio_app`) never loads torch and answers at once; the worker
(`worker`, with the models in `engine`) makes one video after another. Both speak through SQLite alone (`job_store`).
"""
