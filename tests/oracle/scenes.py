"""What happens between an application, people and their phones: scenes, each with people of its own,
chosen by a seed.
"""

from __future__ import annotations

import functools
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from oracle.callers import Wanted, repeated
from oracle.phones import act
from oracle.provider import BUSY, GONE

if TYPE_CHECKING:
    from collections.abc import Callable

    from oracle.callers import Callers

    Scene = Callable[[Callers, random.Random], None]

#: Scenes under way at the most.
_AT_ONCE = 96


def nobody_answers(here: Callers, dice: random.Random) -> None:
    """A push that no phone reports; the SMS goes out."""
    trigger = dice.choice(["not_delivered", "not_clicked"])
    here.notify(_inline(here, dice, act(), trigger), http=_http(dice))


def somebody_clicks(here: Callers, dice: random.Random) -> None:
    """A click, in time, just in time, or too late."""
    after_s = _after(dice)
    does = act(clicked=after_s * dice.uniform(0.1, 1.3), by_http=_http(dice))
    here.notify(_inline(here, dice, does, "not_clicked", after_s), http=_http(dice))


def it_is_delivered(here: Callers, dice: random.Random) -> None:
    """A delivery is confirmed, in time, just in time, or too late."""
    after_s = _after(dice)
    does = act(delivered=after_s * dice.uniform(0.1, 1.3), by_http=_http(dice))
    here.notify(_inline(here, dice, does, "not_delivered", after_s), http=_http(dice))


def only_a_push(here: Callers, dice: random.Random) -> None:
    """A push without a plan."""
    who = Wanted(registrations=(here.names.registration(),), act=act(delivered=0.2, clicked=0.9))
    here.notify(who, http=_http(dice))


def only_an_sms(here: Callers, dice: random.Random) -> None:
    """An SMS at once; every other one is critical."""
    wanted = Wanted(phone=here.names.phone(), steps=(("not_delivered", 0),), critical=dice.random() < 0.5)
    here.notify(wanted, http=_http(dice))


def a_device_is_gone(here: Callers, dice: random.Random) -> None:
    """FCM knows the device no more; the SMS goes at once."""
    wanted = Wanted(
        registrations=(here.names.registration(GONE),), phone=here.names.phone(), act=act(),
        steps=(("not_delivered", _after(dice)),),
    )  # fmt: skip
    here.notify(wanted, http=_http(dice))


def a_device_is_busy(here: Callers, dice: random.Random) -> None:
    """One device has had too many pushes; nobody else has to wait for that."""
    who = Wanted(
        registrations=(here.names.registration(BUSY),), phone=here.names.phone(), act=act(),
        steps=(("not_clicked", _after(dice)),),
    )  # fmt: skip
    here.notify(who, http=_http(dice))


def many_at_once(here: Callers, dice: random.Random) -> None:
    """Many people in one call; all of them answer, or nobody."""
    after_s = _after(dice)
    does = act(clicked=dice.choice([None, 0.5, after_s]), by_http=_http(dice))
    here.notify_together(
        Wanted(act=does, steps=(("not_clicked", after_s),)), dice.randrange(here.crowd // 2, here.crowd * 3 // 2)
    )


def several_steps(here: Callers, dice: random.Random) -> None:
    """A push and two SMS; perhaps somebody clicks between them."""
    clicked = dice.choice([None, 0.5, 3.0])
    steps = (("not_delivered", 1.5), ("not_clicked", 2.0))
    who = Wanted(registrations=_devices(here, 2), phone=here.names.phone(), act=act(clicked=clicked), steps=steps)
    here.notify(who, http=_http(dice))


def later(here: Callers, dice: random.Random) -> None:
    """One that waits for its time, and may be cancelled before."""
    wanted = Wanted(
        registrations=_devices(here, 1), phone=here.names.phone(), act=act(), steps=(("not_clicked", 1.5),), in_s=2.5
    )
    said = here.notify(wanted, http=_http(dice))
    if dice.random() < 0.5:
        time.sleep(dice.uniform(0, 2))
        here.cancel(said, http=_http(dice))


def cancelled(here: Callers, dice: random.Random) -> None:
    """A cancellation, early, just in time, or too late; by id or by key."""
    after_s = _after(dice)
    wanted = _inline(here, dice, act(), "not_clicked", after_s)
    said = here.notify(repeated(wanted, here.names.token()) if _http(dice) else wanted, http=_http(dice))
    time.sleep(after_s * dice.uniform(0, 1.2))
    here.cancel(said, http=_http(dice))


def one_key(here: Callers, dice: random.Random) -> None:
    """The same key again and again, over both ways."""
    wanted = repeated(_inline(here, dice, act(), "not_delivered"), here.names.token())
    token = here.names.token()
    for _ in range(3):
        here.notify(wanted, http=_http(dice), token=token)
        time.sleep(dice.choice([0, 0, 0.5]))


def somebody_signs_up(here: Callers, dice: random.Random) -> None:
    """A new person's device and number, and a notification right behind; perhaps with notifications off."""
    user, enabled, http = here.names.user(), dice.random() < 0.7, _http(dice)
    here.device(here.names.registration(), user, enabled=enabled, http=http)
    here.phone(user, here.names.phone(), http=http)
    time.sleep(dice.choice([0, 0, 2]))
    trigger = dice.choice(["notifications_disabled", "not_clicked"])
    here.notify(Wanted(user=user, act=act(), steps=((trigger, _after(dice)),)), http=http)


def a_device_moves(here: Callers, dice: random.Random) -> None:
    """Somebody else takes over a device; both are notified."""
    old, new, device, http = here.names.user(), here.names.user(), here.names.registration(), _http(dice)
    for user in (old, new):
        here.phone(user, here.names.phone(), http=http)
    here.device(device, old, http=http)
    here.notify(Wanted(user=old, act=act(clicked=0.3), steps=(("not_clicked", 3),)), http=http)
    time.sleep(dice.uniform(0, 1))
    here.device(device, new, http=http)
    for user in (old, new):
        here.notify(Wanted(user=user, act=act(clicked=0.3), steps=(("not_clicked", 3),)), http=http)


def stop_and_start(here: Callers, dice: random.Random) -> None:
    """STOP between two SMS, or while one is due; then perhaps START."""
    number = here.names.phone()
    wanted = Wanted(phone=number, steps=(("not_delivered", 0),))
    pending = Wanted(registrations=_devices(here, 1), phone=number, act=act(), steps=(("not_clicked", 2),))
    here.notify(dice.choice([wanted, pending]), http=_http(dice))
    time.sleep(dice.uniform(0, 1.5))
    here.write_back(number, "STOP")
    time.sleep(dice.choice([0.2, 2.5]))
    here.notify(wanted, http=_http(dice))
    if dice.random() < 0.3:
        here.write_back(number, "START")
        here.notify(wanted, http=_http(dice))


def too_many(here: Callers, dice: random.Random) -> None:
    """More SMS to one number than it may get, at once."""
    number = here.names.phone()
    for _ in range(12):
        here.notify(Wanted(phone=number, steps=(("not_delivered", 0),)), http=_http(dice))


def the_same_text(here: Callers, dice: random.Random) -> None:
    """One text to one number twice."""
    wanted, token = Wanted(phone=here.names.phone(), steps=(("not_delivered", 0),)), here.names.token()
    for _ in range(2):
        here.notify(wanted, http=_http(dice), token=token)
        time.sleep(dice.uniform(0, 1))


#: Every scene, and how often it is played.
WEIGHTS: dict[Scene, int] = {
    nobody_answers: 4,
    somebody_clicks: 6,
    it_is_delivered: 4,
    only_a_push: 1,
    only_an_sms: 4,
    a_device_is_gone: 2,
    a_device_is_busy: 1,
    many_at_once: 1,
    several_steps: 2,
    later: 2,
    cancelled: 4,
    one_key: 2,
    somebody_signs_up: 4,
    a_device_moves: 1,
    stop_and_start: 3,
    too_many: 1,
    the_same_text: 2,
}


class Traffic(threading.Thread):
    """Plays scenes beside the main thread; the arguments are those of :func:`play`."""

    def __init__(self, here: Callers, seed: int, *, per_s: float, over: threading.Event) -> None:
        super().__init__()
        self._play = functools.partial(play, here, seed, per_s=per_s, over=over)
        self._failed: BaseException | None = None

    def run(self) -> None:
        """Play until it is over."""
        try:
            self._play()
        except BaseException as error:  # noqa: BLE001 - raised again by finish, in the main thread
            self._failed = error

    def finish(self) -> None:
        """Wait for the last scene.

        Raises:
            BaseException: a scene could not be played, which is a fault of the oracle's own.
        """
        self.join()
        if self._failed is not None:
            raise self._failed


def play(here: Callers, seed: int, *, per_s: float, over: threading.Event) -> None:
    """Begin so many scenes each second until it is over, and return when all have ended.

    Raises:
        Exception: a scene could not be played, which is a fault of the oracle's own.
    """
    dice = random.Random(seed)
    scenes, weights = list(WEIGHTS), list(WEIGHTS.values())
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        played = []
        while not over.wait(dice.expovariate(per_s)):
            (scene,) = dice.choices(scenes, weights)
            played.append(pool.submit(scene, here, random.Random(dice.random())))
        wait(played)
    for one in played:
        one.result()


def _inline(
    here: Callers, dice: random.Random, does: dict[str, str], trigger: str, after_s: float | None = None
) -> Wanted:
    devices = _devices(here, dice.choice([1, 1, 2]))
    steps = ((trigger, after_s or _after(dice)),)
    phone, critical = here.names.phone(), dice.random() < 0.25
    return Wanted(registrations=devices, phone=phone, act=does, steps=steps, critical=critical)


def _devices(here: Callers, count: int) -> tuple[str, ...]:
    return tuple(here.names.registration() for _ in range(count))


def _after(dice: random.Random) -> float:
    return round(dice.uniform(1.5, 4), 1)


def _http(dice: random.Random) -> bool:
    return dice.random() < 0.4
