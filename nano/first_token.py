"""How long a newcomer waits: `first_token.py DS4 [RUNS]`, from the start of the process to its first word."""

import resource
import statistics
import subprocess
import sys
import time


def once(command):
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    process.stdout.read(1)
    first = time.perf_counter() - began
    process.stdout.read()
    process.wait()
    return first, time.perf_counter() - began


def main(ds4, runs=10):
    command = [ds4, "run", "--temp", "0", "-p", "Who are you?"]
    once(command)  # the file is in memory from here on
    firsts, wholes = zip(*(once(command) for _ in range(int(runs))))
    for name, times in (("first word", firsts), ("whole answer", wholes)):
        times = sorted(1000 * t for t in times)
        print(f"{name}: median {statistics.median(times):.0f} ms, from {times[0]:.0f} to {times[-1]:.0f}, {len(times)} runs")
    print(f"memory: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} MiB at most")


if __name__ == "__main__":
    main(*sys.argv[1:])
