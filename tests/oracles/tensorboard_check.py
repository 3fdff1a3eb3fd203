"""What tensorboard reads from a run's folder, as JSON: {tag: [[step, value, wall_time], ...]}. python tensorboard_check.py DIR"""
import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = EventAccumulator(sys.argv[1])
events.Reload()
print(json.dumps({t: [[e.step, e.value, e.wall_time] for e in events.Scalars(t)] for t in events.Tags()["scalars"]}))
