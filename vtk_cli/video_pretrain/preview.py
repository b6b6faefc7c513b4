"""`vtk video-pretrain preview`: what the filter takes from a clip, as a picture and as a film."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from vtk_cli.console import Console
from vtk_cli.data.embedded import open_embedded
from vtk_cli.data.video.decoding import BrokenVideo, VideoDecoder
from vtk_cli.data.video.reading import check_backend
from vtk_cli.data.video.records import VideoFile, parse_sampling
from vtk_cli.data.video.sampling import Frames, clips_for_test
from vtk_cli.errors import ExitCode, UserError
from vtk_cli.files import make_folder, require_folder
from vtk_cli.video_pretrain.command import PreviewOptions
from vtk_cli.video_pretrain.data_options import MOVING_DIGITS
from vtk_cli.video_pretrain.freqaug import freqaug_of
from vtk_cli.video_pretrain.preview_picture import Filtered, draw_preview, write_film
from vtk_cli.video_pretrain.samples import TestViews


def preview_clip(options: PreviewOptions, console: Console) -> ExitCode:
    """Draw frames before and after the filter, what is between them, and the spectra; and write them as a film.

    Raises:
        UserError: the clip cannot be decoded, there is no filter, or it takes everything out.
    """
    check_backend(options.backend)
    sampling = parse_sampling(options.sampling)
    freqaug = freqaug_of(options)
    if freqaug.kind == "none":
        raise UserError("nothing is filtered", "--freqaug none", "give --freqaug t, s, st, joint or diff")
    freqaug.check(sampling.frames, options.img_size)
    out = options.out or Path("preview")
    require_folder(out)
    path, rate = _path(options.clip, console), 0.0

    def choose(length: int, fps: float) -> list[Frames]:
        nonlocal rate
        rate = fps
        return clips_for_test(sampling, length, fps, 1, short=options.short)

    try:
        with closing(VideoDecoder(options.backend, options.decode_timeout)) as decoder:
            (frames,) = decoder.clips(VideoFile(path, None, str(path)), choose)
    except BrokenVideo as error:
        raise UserError(error.reason, str(path), "name another video") from error
    side = options.img_size
    views = TestViews(sampling, 1, 1, side, side, "start", options.short, options.mean, options.std)
    clip = views.seen(torch.from_numpy(np.ascontiguousarray(frames)))
    filtered = freqaug(clip, torch.ones(1, dtype=torch.bool))
    shown = Filtered(clip[0].numpy(), filtered[0].numpy(), options.mean, options.std)
    make_folder(out)
    title = f"{path.name}: --freqaug {options.freqaug}"
    drawn = draw_preview(out / "preview", shown, title=title, subtitle=_subtitle(options, rate, sampling.stride))
    film = out / "preview.mp4"
    write_film(film, shown, max(1.0, rate / max(1, sampling.stride)))
    kept = float((filtered**2).sum() / (clip**2).sum().clamp(min=1e-12))
    console.text(f"Look at {drawn.png} and {film}; {100 * kept:.1f} % of the clip's energy is left")
    console.emit({"picture": str(drawn.png), "film": str(film), "energy_left": kept})
    return ExitCode.DONE


def _path(clip: str, console: Console) -> Path:
    if clip != MOVING_DIGITS:
        return Path(clip)
    return sorted((open_embedded(MOVING_DIGITS, console).folder / "val").rglob("*.mp4"))[0]


def _subtitle(options: PreviewOptions, rate: float, stride: int) -> str:
    parts = []
    if options.filters_time:
        hertz = options.freq_cutoff_t * rate / max(1, stride)
        parts.append(f"time {options.freq_t} {options.freq_cutoff_t:g} cycles a frame ({hertz:.2g} Hz)")
    if options.filters_space:
        parts.append(f"space {options.freq_s} {options.freq_cutoff_s:g} cycles a pixel")
    return ", ".join(parts) or "differences of neighbouring frames"
