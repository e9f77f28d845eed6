"""What the final script costs beyond its entries: it is written down after each one that it has run."""

from append import buffer_of, replaced
from figures import figure, table
from stopwatch import in_turns, median, once, spawn, wait


def measure(bench):
    binaries = {"rl-cleanup": bench.binary} | {n: d / "rl-cleanup" for n, d in bench.also.items()}
    counts = [1] + [n + 1 for n in bench.sizes([100, 1000])]
    contestants, many = {}, {}
    for who, binary in binaries.items():
        for count in counts:
            state = bench.work / f"cleanup-{who}-{count}"
            prepare(bench, binary, state, count)
            # The long ones take seconds.
            most = bench.rounds(15, 2) if count < 1000 else 2
            contestants[who, count] = (one_cleanup(bench, state), most)
            many[count] = state
    for count in counts:
        contestants["the disk alone", count] = replaced(many[count], ["clbuff"])
    samples = in_turns(bench.rounds(15, 2), contestants)
    middle = {key: median(taken) for key, taken in samples.items()}
    rows = []
    for count in counts[1:]:
        cells = {}
        for who in binaries:
            over = (middle[who, count] - middle[who, 1]) / (count - 1)
            cells[who] = figure(over, "us")
        taken = samples["the disk alone", count]
        cells["the disk alone"] = figure(middle["the disk alone", count], "us", taken)
        rows.append((f"{count - 1:,}", cells))
    title = "The final script, for each entry (`true`) beyond the first"
    bench.add(table("cleanup", title, "entries", [*binaries, "the disk alone"], rows))


def prepare(bench, binary, state, count):
    state.mkdir(mode=0o700)
    (state / "clbuff").touch(mode=0o600)
    (state / "clbuff").write_bytes(buffer_of(count - 1, "ours"))
    append = [str(binary), "--dir", str(state), "append", f"true {count - 1}"]
    if wait(spawn(append, bench.env)) != 0:
        raise RuntimeError(f"{' '.join(append)} has failed")


def one_cleanup(bench, state):
    """A function that runs the final script of a state directory, which stays as it was."""
    names = ["clbuff", "cleanup.sh"]
    kept = {name: (state / name).read_bytes() for name in names}
    run = once([str(state / "cleanup.sh")], bench.env)

    def again():
        for name, content in kept.items():
            (state / name).write_bytes(content)
        taken = run()
        if (state / "clbuff").stat().st_size != 0:
            raise RuntimeError(f"the cleanup in {state} has left entries")
        return taken

    return again
