"""The frame loop: a thread that takes pictures, decodes them, keeps photos and puts out results.

Nothing of it runs on the event loop; the driver takes from here what is finished. One thread a camera does one thing at
a time, so what is seen leaves in the order it was seen. At most RESULTS_MAX results wait for the driver; while they do
no picture is taken: those of a folder wait on its disk, those of a camera pass unseen.

A job is a picture that was asked for (a trigger, or a group that is read): it is served before the next look, with
pictures taken after it was asked, up to ``retry`` of them within ``timeout``. In a folder it gets the next picture.
One that had to wait for others so long has missed its unit: it gets none, which is no fault of the camera.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from edge_agent import clock
from edge_agent.driver import Shape
from edge_agent.errors import DeviceLost, DeviceRefused, DriverError, ReadingRejected
from edge_agent.model import Instant, Sample, Scan
from edge_agent_drivers.camera.config import CameraSettings
from edge_agent_drivers.camera.decode import Code, Decoder, OutsidePicture
from edge_agent_drivers.camera.frame import Frame, Source
from edge_agent_drivers.camera.opencv import brightness_of, file_of, sharpness_of
from edge_agent_drivers.camera.photos import NotStored, Photos
from edge_agent_drivers.camera.properties import Properties
from edge_agent_drivers.camera.results import Arrivals, Samples, Seen, as_expected, result, scans

RESULTS_MAX = 64
JOBS_MAX = 16
TURN_S = 0.2  # how long one wait lasts before jobs and tidying have their turn

Result = Sample | Scan | ReadingRejected


@dataclass(slots=True)
class Job:
    """A picture that was asked for: by a trigger ("") or for a group."""

    group: str
    asked: Instant = field(default_factory=clock.now)
    sample: Future[Sample] = field(default_factory=Future)  # of a group; a trigger's result is put out


class Frames:
    """See the module docstring. ``take``, ``ask`` and ``stop`` are called from outside, the rest is the thread's."""

    def __init__(
        self,
        device: str,
        settings: CameraSettings,
        shape: Shape,
        source: Source,
        properties: Properties | None,
        news: Callable[[], None],
    ) -> None:
        self._device = device
        self._settings = settings
        self._source = source
        self._properties = properties
        self._news = news  # called from the thread: open, a result, or the end
        self._decoder = Decoder(settings)
        self._photos = Photos(settings.photos) if settings.photos else None
        self._arrivals = Arrivals(settings.absent_after)
        self._samples = Samples(shape, settings)
        self._room = threading.Condition()  # guards all below
        self._results: deque[Result] = deque()
        self._jobs: deque[Job] = deque()
        self._stopped = False
        self.opened = self.ended = False
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name=f"frames-{device}", daemon=True)

    def take(self) -> list[Sample | Scan]:
        """What is finished; [] when nothing is. Raises ReadingRejected in its turn, and what ended the loop."""
        taken: list[Sample | Scan] = []
        with self._room:
            while self._results and not isinstance(self._results[0], ReadingRejected):
                taken.append(self._results.popleft())  # type: ignore[arg-type]
            if self._results and not taken:
                raise self._results.popleft()  # type: ignore[misc]
            self._room.notify_all()
        if not taken and self.failure is not None:
            raise self.failure
        return taken

    def ask(self, job: Job) -> None:
        """Serve a job next. Raises DeviceRefused when too many wait, and what ended the loop."""
        with self._room:
            if self.failure is not None:
                raise self.failure
            if len(self._jobs) >= JOBS_MAX:
                hint = "the camera is asked for pictures faster than it gives them"
                raise DeviceRefused(self._device, f"{JOBS_MAX} triggers wait already", hint=hint)
            self._jobs.append(job)
            self._room.notify_all()

    def stop(self) -> None:
        """End the thread soon."""
        with self._room:
            self._stopped = True
            self._room.notify_all()
        self._source.stop()

    # --- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._open()
            while not self._stopped:
                self._turn()
        except DriverError as error:
            self.failure = error
        except BaseException as error:
            self.failure = error
            raise
        finally:
            self._source.close()
            with self._room:
                self.failure = self.failure or DeviceLost(self._device, f"{self._settings.source}: is not open")
                jobs, self._jobs = self._jobs, deque()
            for job in jobs:
                if job.sample.set_running_or_notify_cancel():
                    job.sample.set_exception(self.failure)
            self.ended = True
            self._news()

    def _open(self) -> None:
        if self._photos is not None:
            try:
                self._photos.prepare()
            except OSError as error:
                folder = self._settings.photos.folder if self._settings.photos else ""
                hint = f"the agent's user must be able to write there: ls -ld {folder}"
                raise DeviceRefused(self._device, f"photos: {folder}: {error.strerror}", hint=hint) from error
        self._source.open()
        self.opened = True
        self._news()

    def _turn(self) -> None:
        """One picture, or one job, or a short wait."""
        began_s = time.monotonic()
        if not self._wait_for_room():
            return
        try:
            if self._settings.kind == "folder":
                self._next_file()
            elif self._jobs:
                self._serve(self._jobs[0])
            elif self._settings.mode == "continuous":
                self._look()
        except ReadingRejected as error:
            self._put([error])
        except OutsidePicture as error:
            raise DeviceRefused(self._device, str(error), hint="look at region: in the config") from error
        turn_s = self._settings.look_every if self._settings.mode == "continuous" else TURN_S
        self._rest(began_s if self._settings.kind == "folder" else began_s + turn_s)  # a folder's source waits itself

    def _rest(self, until_s: float) -> None:
        """Until the next look, or until a job comes: time to tidy the photos, a step at least."""
        more = self._photos is not None
        while more and self._photos is not None:
            more = self._photos.tidy() and time.monotonic() < until_s and not self._jobs and not self._stopped
        with self._room:
            self._room.wait_for(lambda: self._jobs or self._stopped, until_s - time.monotonic())

    def _wait_for_room(self) -> bool:
        with self._room:
            self._room.wait_for(lambda: len(self._results) < RESULTS_MAX or self._stopped, TURN_S)
            return len(self._results) < RESULTS_MAX and not self._stopped

    def _put(self, results: list[Result]) -> None:
        with self._room:
            self._results += results
        self._news()

    # --- looking -------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """The next picture: what has arrived in it."""
        frame = self._source.next(time.monotonic_ns() - int(self._settings.lag * 1e9), self._settings.timeout)
        if frame is None:
            self._must_be_stopped()
            return
        codes = self._decoder.codes(frame.image)
        believed = self._settings.expect is None or as_expected(codes, self._settings.expect)
        new = self._arrivals.see(codes, frame.at.mono_ns, believed=believed)
        if new:
            seen = self._seen(frame, codes)
            self._put([*scans(self._device, seen, new), *self._spoken(seen)])

    def _next_file(self) -> None:
        """The next file of a folder is a result of its own, and that of all groups that were asked for before."""
        frame = self._source.next(0, TURN_S)
        if frame is not None:
            seen = self._seen(frame, self._decoder.codes(frame.image))
            self._put([*result(self._device, seen, self._settings.expect), *self._spoken(seen)])
            for job in self._due(lambda job: job.asked.mono_ns <= frame.at.mono_ns):
                self._answer(job, seen)
            self._source.done(frame)
        patience_ns = int(self._settings.timeout * 1e9)
        for job in self._due(lambda job: time.monotonic_ns() - job.asked.mono_ns >= patience_ns):
            self._answer(job, None)

    def _due(self, is_due: Callable[[Job], bool]) -> list[Job]:
        with self._room:
            due = [job for job in self._jobs if is_due(job)]
            self._jobs = deque(job for job in self._jobs if job not in due)
        return due

    def _serve(self, job: Job) -> None:
        """Pictures taken after the job was asked for, until one shows what it should."""
        best: Frame | None = None
        codes: Sequence[Code] = ()
        began_ns, patience_ns = time.monotonic_ns(), int(self._settings.timeout * 1e9)
        if began_ns - job.asked.mono_ns >= patience_ns:
            self._miss(job)
            return
        self._source.next(job.asked.mono_ns, self._settings.timeout)  # its exposure may have begun before: not this one
        since_ns = job.asked.mono_ns
        for _ in range(self._settings.retry):
            left_s = (began_ns + patience_ns - time.monotonic_ns()) / 1e9
            frame = self._source.next(since_ns, left_s) if left_s > 0 else None
            if frame is None:
                break
            found = self._decoder.codes(frame.image)
            if best is None or len(found) > len(codes):
                best, codes = frame, found
            if as_expected(found, self._settings.expect):
                best, codes = frame, found
                break
            since_ns = frame.at.mono_ns + 1
        if best is None:
            self._must_be_stopped()
            return
        seen = self._seen(best, codes)
        if job.group:
            self._answer(job, seen)
        else:
            self._put([*result(self._device, seen, self._settings.expect), *self._spoken(seen)])
        with self._room:
            self._jobs.popleft()

    def _miss(self, job: Job) -> None:
        """Too many were asked for before: what is in view now is another's."""
        if job.group:
            self._answer(job, None)
        else:
            now = clock.now()
            why = f"no picture within {self._settings.timeout:g} s: too many were asked for"
            samples = self._samples
            spoken = [samples.sample(name, Seen(now, None), now.mono_ns, now, why) for name in samples.spoken]
            self._put([*result(self._device, Seen(now, None), self._settings.expect), *spoken])
        with self._room:
            self._jobs.popleft()

    def _must_be_stopped(self) -> None:
        """No picture came. Raises DeviceLost unless that is because the loop is to end."""
        if not self._stopped:
            what = f"{self._settings.source}: no picture within {self._settings.timeout:g} s"
            hint = "look at the camera's power and cable; does it wait for a trigger of its own?"
            raise DeviceLost(self._device, what, hint=hint)

    def _answer(self, job: Job, seen: Seen | None) -> None:
        if not job.sample.set_running_or_notify_cancel():
            return
        now = clock.now()
        missing = "" if seen is not None else f"no new picture within {self._settings.timeout:g} s"
        sample = self._samples.sample(job.group, seen or Seen(now, None), job.asked.mono_ns, now, missing)
        job.sample.set_result(sample)

    def _spoken(self, seen: Seen) -> list[Result]:
        now = clock.now()
        return [self._samples.sample(name, seen, seen.at.mono_ns, now) for name in self._samples.spoken]

    def _seen(self, frame: Frame, codes: Sequence[Code]) -> Seen:
        photo, why = self._keep(frame)
        brightness = sharpness = None
        if self._samples.measured:
            part, _origin = self._decoder.region(frame.image)
            brightness, sharpness = brightness_of(part), sharpness_of(part)
        its = self._properties
        return Seen(
            frame.at,
            codes,
            photo,
            why,
            brightness,
            sharpness,
            its.value("exposure") if its else None,
            its.value("gain") if its else None,
        )

    def _keep(self, frame: Frame) -> tuple[str, str]:
        """The photo's hash, or why there is none: without a photo the reading goes on."""
        if self._photos is None or self._settings.photos is None:
            return "", "no photos are kept"
        suffix = frame.suffix or (".png" if self._settings.photos.format == "png" else ".jpg")
        data = frame.file or file_of(frame.image, suffix, self._settings.photos.quality)
        try:
            return self._photos.store(data, suffix), ""
        except NotStored as error:
            return "", f"photo not stored: {error.args[0]}"
