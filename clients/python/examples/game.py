"""Think of what is shown; the decoder answers, and every trial teaches it: `python game.py [SESSION]`."""

import random
import sys

from neuroloop_client import Client

URL = "http://127.0.0.1:8765"
TRIAL_S = 2.0
REACTION_S = 0.3  # of a trial, in which the player has not begun yet


def play(session: str, trials: int, url: str = URL, trial_s: float = TRIAL_S) -> int:
    """Play so many trials; returns how many moves were right."""
    with Client(url) as server:
        clock, classes = server.clock(), server.session(session)["settings"]["classes"]
        score, played, began, move = 0, 0, clock.now(), None
        goal = random.choice(classes)
        print(f"think: {goal}")
        for prediction in server.predictions(session, policy="latest"):  # goes on over broken connections
            move = prediction["label"] or move
            if prediction["time"] < began + trial_s:
                continue
            server.label(session, goal, began + min(REACTION_S, trial_s / 2), prediction["time"])
            score, played = score + (move == goal), played + 1
            print(f"{'hit ' if move == goal else 'miss'} {move}   {score} of {played}")
            if played == trials:
                return score
            goal, began, move = random.choice(classes), clock.now(), None
            print(f"think: {goal}")
    return score


if __name__ == "__main__":
    play(sys.argv[1] if len(sys.argv) > 1 else "demo", trials=50)
