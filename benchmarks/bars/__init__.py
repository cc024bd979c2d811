"""The bars that ``python -m benchmarks.prove`` holds the project to, one file per subject.

A new file here is found by itself. It registers functions:

    @bar("name of the bar", "goal in words")
    def name_of_the_bar(proof: Proof) -> tuple[str, bool | None]:
        return "what was measured", True

The second result is None where the goal does not apply to this machine; the text then says why.
"""
