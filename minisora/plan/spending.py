"""What a model spends on a clip and on a step of training: FLOPs, bytes, seconds, dollars. Pure arithmetic.

    pass       2 FLOPs a MAC x MACs of the denoiser (`report.cost`)
    clip       passes x steps x pass + text encoder + decoder
    seconds    stretched clip / (peak x utilisation), of which a share stays on one card, + talk between the cards
    stretch    of a pass, 1 + what its card's memory moves / bandwidth over its products / peak
    step       3 passes a sample, 4 where every block runs again (checkpointing)
    memory     weights, and the most that is alive beside them; in training gradients, moments, what autograd keeps

Numbers come by name and leave by name, as in `report.model`, and there are no branches: a choice is `np.where`, so that
the page writes the same arithmetic down as JavaScript. Values may be arrays. Units: FLOPs, bytes, seconds, $, kWh.

**Memory moves** every number that a block makes at least twice, as it is written and read: operators run one by one.
What autograd keeps of a block (`blocks`) is what it makes. Wide blocks have many products for each number and hardly
stretch; of narrow ones, where attention sees few keys, it is half of the time.

**Cards** are data x sequence x tensor: *data* ranks have clips of their own, *sequence* ranks share the tokens of a
clip (Ulysses, arXiv 2309.14509: attention by heads, the rest by tokens), *tensor* ranks share every matrix (Megatron,
arXiv 1909.08053). *fsdp* of the data and sequence ranks share the weights (ZeRO 3, arXiv 1910.02054). A card of n sends

    sequence   4 (n - 1) / n of its tokens x d a block and pass: q, k, v and what attention gives
    tensor     2 (n - 1) / n x 2 of the tokens x d, 3 with cross-attention: ring all-reduces
    fsdp       (n - 1) / n of the weights a pass; in training twice, and once the gradients
    data       2 (n - 1) / n of the gradients a step

over the links of a machine, or over its network where the ranks do not fit one machine. What shares weights or
gradients hides behind the compute, as far as that lasts.
"""

from collections.abc import Mapping

import numpy as np

from minisora.plan.subject import Subject
from minisora.report.cost import Band, PassMacs, TransformerShape, attention_keys, forward_macs, latent_frames
from minisora.report.units import HOURS_PER_DAY, SECONDS_PER_HOUR, Number

Inputs = Mapping[str, Number]
Numbers = dict[str, Number]

# Bytes of a weight in training: float32, its gradient, two moments, and the average of the weights.
WEIGHT, GRADIENT, MOMENTS, AVERAGE = 4.0, 4.0, 8.0, 4.0
# Of T5-XXL.
TEXT_BLOCKS = 24.0
# Blocks whose gathered weights are there at once: the one that works and the next.
GATHERED = 2.0
# In seconds, and in hours.
AN_HOUR, A_DAY = float(SECONDS_PER_HOUR.value), float(HOURS_PER_DAY.value)
# Where weights are: on the card all the time; there only while their part works; there a block or two at a time; never
# there (computed elsewhere, or beforehand).
PLACES = ("resident", "swapped", "streamed", "elsewhere")
RESIDENT, SWAPPED, STREAMED, ELSEWHERE = range(4)
# What blocks keep for weights, scales and gates of their own, which a step of adapters does not need: of the MLP all
# that its matrices multiply, and around it so many numbers a token and channel.
NOT_KEPT = 6.0
# A backward pass costs two forward passes.
TRAINING_PASSES = 3.0
# Times that a number goes through the card's memory.
WRITTEN_AND_READ = 2.0

INPUTS: dict[str, str] = {
    "clip.frames": "frames of the clip",
    "clip.height": "pixels",
    "clip.width": "pixels",
    "serve.steps": "denoising steps",
    "serve.passes": "passes a step (guidance)",
    "serve.reused": "share of the passes whose result is taken from the step before (a cache)",
    "serve.batch": "clips at once, of each data rank",
    "train.batch": "clips a step, of each data rank",
    "cards.data": "ranks",
    "cards.fsdp": "ranks",
    "cards.sequence": "ranks",
    "cards.tensor": "ranks",
    "card.peak": "FLOP/s, dense, in the precision of the products",
    "card.bandwidth": "bytes/s of its own memory; infinite where the share of the peak has that in it",
    "card.link": "bytes/s one way to the other cards of the machine",
    "card.network": "bytes/s one way of each card to other machines",
    "card.host": "bytes/s one way from the machine's memory",
    "card.per_machine": "cards",
    "card.power": "kW of a card and what it needs around it",
    "card.price": "$ an hour",
    "use.serve": "share of what peak and memory allow that a clip reaches on one card",
    "use.train": "the same of a step of training",
    "use.alone": "share of a clip's time that stays when cards are added",
    "attention.times": "time of attention over that of the kernel in common use",
    "products.eight_bits": "1: products with weights run in 8 bits",
    "bytes.weight": "bytes of a weight that serves",
    "bytes.activation": "bytes of an activation",
    "bytes.text": "bytes of a weight of the text encoders",
    "bytes.vae": "bytes of the VAE's weights and activations",
    "place.text": "where the text encoders' weights are, of `PLACES`",
    "place.denoiser": "where the denoiser's are",
    "place.vae": "where the VAE's are",
    "decode.tiles": "1: the picture in tiles",
    "checkpointing.full": "1: every block runs again in the backward pass",
    "checkpointing.selective": "1: products are kept, the cheap rest runs again",
    "train.rank": "of the adapters that learn; 0: all weights do",
    "train.samples": "clips in all",
    "train.budget": "$",
}
"""Every input by name, in words."""


def spend(subject: Subject, inputs: Inputs) -> Numbers:
    """Every result by name.

    Args:
        subject: the model.
        inputs: a value for every name of `INPUTS`.
    """
    shape = subject.shape
    numbers: Numbers = {}
    frames, places = token_grid(subject, inputs)
    joint = shape.text_tokens if shape.text == "joint" else 0.0
    numbers["tokens"] = frames * places
    rows = frames * places + joint

    macs = forward_macs(shape, frames, places, subject.attention)
    whole = macs.total
    numbers["pass_flops"] = 2 * whole
    numbers["keys_seen"] = attention_keys(subject.attention, frames, places) + joint
    passes = inputs["serve.steps"] * inputs["serve.passes"] * (1 - inputs["serve.reused"])
    pixels = inputs["clip.frames"] * inputs["clip.height"] * inputs["clip.width"]
    numbers["denoise_flops"] = passes * numbers["pass_flops"]
    numbers["eight_bit_flops"] = inputs["products.eight_bits"] * passes * 2 * macs.linear
    # The empty prompt is encoded too.
    numbers["text_flops"] = 2 * subject.text_params * shape.text_tokens * inputs["serve.passes"]
    numbers["decode_flops"] = 2 * subject.decoder.macs_per_pixel * pixels
    numbers["clip_flops"] = numbers["denoise_flops"] + numbers["text_flops"] + numbers["decode_flops"]
    again = (
        inputs["checkpointing.full"] * 2 * (whole - 2 * frames * places * shape.patch_values * shape.width)
    )
    rank = inputs["train.rank"]
    numbers["train_flops"] = np.where(
        rank > 0,
        2 * adapted_macs(shape, macs, rank, frames * places),
        TRAINING_PASSES * numbers["pass_flops"],
    )
    numbers["recomputed_flops"] = again
    numbers["stretch"] = _stretch(subject, inputs, macs, rows)

    numbers |= _serve_seconds(subject, inputs, numbers, rows, passes)
    numbers |= _serve_memory(subject, inputs, rows, frames)
    numbers |= _train_seconds(subject, inputs, numbers, rows)
    numbers |= _train_memory(subject, inputs, rows, frames, places)
    return numbers


def adapter_params(shape: TransformerShape, rank: Number) -> Number:
    """Weights of adapters of a rank beside the projections of attention: two thin matrices each (arXiv 2106.09685)."""
    values = 6 + 2 * shape.kv_share + (8 if shape.text == "cross" else 0)
    return shape.layers * rank * shape.width * values


def adapted_macs(shape: TransformerShape, macs: PassMacs, rank: Number, tokens: Number) -> Number:
    """MACs of a step on one sample in which only adapters learn.

    Frozen weights need no gradients of their own, but hand on those of their inputs: one backward pass in place of two.
    Nothing is handed on to the clip, the prompt and the noise level.

    Args:
        shape: the model.
        macs: of a pass without adapters.
        rank: of the adapters, beside queries, keys, values and outputs of all attention.
        tokens: of the video.
    """
    d, layers, m = shape.width, shape.layers, shape.text_tokens
    cross = 1.0 if shape.text == "cross" else 0.0
    rows = tokens + (m if shape.text == "joint" else 0.0)
    adapters = layers * rank * d * (rows * (6 + 2 * shape.kv_share + 4 * cross) + 4 * cross * m)
    # The first block's projections of its input, those of the prompt, and the embedding of patches.
    ends = (
        rows * (1 + 2 * shape.kv_share) * d * d
        + cross * layers * 2 * m * d * d
        + tokens * shape.patch_values * d
    )
    thin = rank * d * (3 * rows + 2 * cross * layers * m)
    backward = macs.linear - ends + 2 * macs.attention
    return macs.total + backward + 3 * adapters - thin


def token_grid(subject: Subject, inputs: Inputs) -> tuple[Number, Number]:
    """Latent frames after patching, and tokens in each."""
    latents = latent_frames(inputs["clip.frames"], subject.vae[0], causal=subject.causal, chunk=subject.chunk)
    rows = np.ceil(inputs["clip.height"] / (subject.vae[1] * subject.patch[1]))
    columns = np.ceil(inputs["clip.width"] / (subject.vae[2] * subject.patch[2]))
    return np.ceil(latents / subject.patch[0]), rows * columns


def _stretch(subject: Subject, inputs: Inputs, macs: PassMacs, rows: Number) -> Number:
    """Time of a pass over that of its products at the peak."""
    moved = WRITTEN_AND_READ * subject.shape.layers * made_by_a_block(subject, inputs, rows, 1.0)
    memory = moved / inputs["card.bandwidth"] * inputs["card.peak"] / (2 * macs.total)
    return 1 + (inputs["attention.times"] - 1) * macs.attention / macs.total + memory


# Talk between cards.


def _group_speed(inputs: Inputs, ranks: Number) -> Number:
    """Bytes/s of a card in a group of so many: of the machine's links, or of the network if they do not suffice."""
    return np.where(ranks > inputs["card.per_machine"], inputs["card.network"], inputs["card.link"])


def _talk_of_a_pass(subject: Subject, inputs: Inputs, rows: Number) -> Number:
    """Seconds of a pass over one clip in which a card sends activations."""
    sequence, tensor = inputs["cards.sequence"], inputs["cards.tensor"]
    shape, size = subject.shape, inputs["bytes.activation"]
    own = rows / sequence * shape.width * size
    exchange = (2 + 2 * shape.kv_share) * own / tensor * (sequence - 1) / sequence
    reductions = 3.0 if shape.text == "cross" else 2.0
    reduce = reductions * 2 * own * (tensor - 1) / tensor
    return shape.layers * (exchange + reduce) / _group_speed(inputs, sequence * tensor)


def _gather_seconds(subject: Subject, inputs: Inputs, size: Number) -> Number:
    """Seconds in which a card gets the other shards of the weights."""
    fsdp = inputs["cards.fsdp"]
    weights = subject.params * size / inputs["cards.tensor"]
    return weights * (fsdp - 1) / fsdp / _group_speed(inputs, fsdp * inputs["cards.tensor"])


# A clip.


def _serve_seconds(
    subject: Subject, inputs: Inputs, numbers: Numbers, rows: Number, passes: Number
) -> Numbers:
    cards = inputs["cards.data"] * inputs["cards.sequence"] * inputs["cards.tensor"]
    ranks = inputs["cards.sequence"] * inputs["cards.tensor"]
    batch = inputs["serve.batch"]
    work = numbers["clip_flops"] + (numbers["stretch"] - 1) * numbers["denoise_flops"]
    alone = batch * work / (inputs["card.peak"] * inputs["use.serve"])
    compute = alone * (inputs["use.alone"] + (1 - inputs["use.alone"]) / ranks)
    talk = batch * passes * _talk_of_a_pass(subject, inputs, rows)
    gather = passes * _gather_seconds(subject, inputs, inputs["bytes.weight"])
    # Weights that come from the machine's memory: once a clip, or every pass beside the compute.
    weights = subject.params * inputs["bytes.weight"] / (inputs["cards.tensor"] * inputs["card.host"])
    place = inputs["place.denoiser"]
    move = np.where(place == SWAPPED, weights, 0.0) + np.where(
        place == STREAMED, np.maximum(0.0, passes * weights - compute), 0.0
    )
    seconds = compute + talk + np.maximum(0.0, gather - compute) + move
    clips = inputs["cards.data"] * batch / seconds
    hours = cards / clips / AN_HOUR
    return {
        "clip_seconds": seconds,
        "step_seconds": seconds
        * (numbers["stretch"] * numbers["denoise_flops"] / work)
        / inputs["serve.steps"],
        "clip_compute_seconds": compute,
        "clip_talk_seconds": talk + gather,
        "clip_talk_share": (talk + gather) / compute,
        "clips_per_hour": AN_HOUR * clips,
        "clip_card_hours": hours,
        "clip_cost": hours * inputs["card.price"],
        "clip_energy": hours * inputs["card.power"],
    }


def _serve_memory(subject: Subject, inputs: Inputs, rows: Number, frames: Number) -> Numbers:
    shape, code, size = subject.shape, subject.code, inputs["bytes.activation"]
    weight, tensor = inputs["bytes.weight"], inputs["cards.tensor"]
    shards = inputs["cards.fsdp"] * tensor
    block = subject.params * weight / shape.layers / tensor
    gathered = np.where(inputs["cards.fsdp"] > 1, GATHERED * block, 0.0)
    dit = subject.params * weight / shards + gathered
    together = inputs["serve.passes"] if code.guidance_together else 1.0
    tokens = rows * inputs["serve.batch"] * together / inputs["cards.sequence"]
    # What the passes before left: keys and values of earlier chunks, or the change that a skipped step repeats.
    cache = np.where(inputs["serve.reused"] > 0, tokens * shape.width * size, 0.0)
    if isinstance(subject.attention, Band) and subject.attention.kind == "causal":
        cache = cache + 2 * shape.layers * tokens * shape.width * shape.kv_share * size / tensor
        tokens = tokens * np.minimum(1.0, subject.attention.frames / frames)
    # Queries, keys, values and the hidden values are divided among tensor ranks; what flows between blocks is not.
    inside = (code.pass_width - code.pass_rest) / tensor + code.pass_rest
    attention = inside * shape.width
    mlp = code.pass_rest * shape.width + (code.pass_hidden + shape.gated_mlp) * shape.hidden / tensor
    activations = tokens * size * np.maximum(attention, mlp)
    decode = inputs["serve.batch"] * decoder_values(subject, inputs) * inputs["bytes.vae"]
    text, vae = subject.text_params * inputs["bytes.text"], subject.vae_params * inputs["bytes.vae"]
    parts = {"text": text, "denoiser": dit, "vae": vae}
    blocks = {"text": GATHERED * text / TEXT_BLOCKS, "denoiser": GATHERED * block, "vae": vae}
    always: Number = 0.0
    stages = {"text": 0.0, "denoiser": activations + cache, "vae": decode}
    for name, weights in parts.items():
        place = inputs[f"place.{name}"]
        always = always + np.where(place == RESIDENT, weights, 0.0)
        then = np.where(place == SWAPPED, weights, np.where(place == STREAMED, blocks[name], 0.0))
        # What is computed elsewhere takes nothing here.
        stages[name] = np.where(place == ELSEWHERE, 0.0, stages[name] + then)
    most = np.maximum(np.maximum(stages["text"], stages["denoiser"]), stages["vae"])
    return {
        "serve_weights": text + dit + vae,
        "serve_activations": activations,
        "serve_cache": cache,
        "serve_decode": decode,
        "serve_memory": always + most,
    }


def decoder_values(subject: Subject, inputs: Inputs) -> Number:
    """Numbers alive at the peak of decoding a clip, whole or in tiles."""
    decoder, frames = subject.decoder, inputs["clip.frames"]
    height, width = inputs["clip.height"], inputs["clip.width"]
    some = np.minimum(frames, decoder.frames_at_once) if decoder.frames_at_once else frames
    few = np.minimum(frames, decoder.tile_frames) if decoder.tile_frames else some
    tiled = np.maximum(inputs["decode.tiles"], float(decoder.always))
    some = np.where(tiled, few, some)
    tile = np.minimum(height, decoder.tile[0]) * np.minimum(width, decoder.tile[1])
    part = np.where(tiled, tile, height * width)
    # The video itself, three numbers a pixel, grows beside it.
    return part * (some * decoder.values + decoder.picture_values) + 3 * frames * height * width


# A step of training.


def _train_seconds(subject: Subject, inputs: Inputs, numbers: Numbers, rows: Number) -> Numbers:
    sequence, tensor = inputs["cards.sequence"], inputs["cards.tensor"]
    cards, batch = inputs["cards.data"] * sequence * tensor, inputs["train.batch"]
    done = (
        numbers["stretch"]
        * (numbers["train_flops"] + numbers["recomputed_flops"])
        * batch
        / (sequence * tensor)
    )
    compute = done / (inputs["card.peak"] * inputs["use.train"])
    rounds = TRAINING_PASSES + inputs["checkpointing.full"]
    talk = batch * rounds * _talk_of_a_pass(subject, inputs, rows)
    sent = np.where(inputs["train.rank"] > 0, inputs["bytes.weight"], inputs["bytes.activation"])
    learn = trained(subject, inputs) / subject.params
    gather = 2 * _gather_seconds(subject, inputs, sent) + learn * _gather_seconds(subject, inputs, GRADIENT)
    # Ranks with the same shard of the weights.
    copies = inputs["cards.data"] * sequence / inputs["cards.fsdp"]
    share = trained(subject, inputs) * GRADIENT / (inputs["cards.fsdp"] * tensor)
    reduce = 2 * share * (copies - 1) / copies / _group_speed(inputs, cards)
    seconds = compute + talk + np.maximum(0.0, gather + reduce - compute)
    bill = training_bill(inputs, numbers["train_flops"], seconds, cards)
    return {
        **bill,
        "train_talk_share": (talk + gather + reduce) / compute,
        "break_even_clips": bill["train_card_hours"] / numbers["clip_card_hours"],
    }


def training_bill(inputs: Inputs, flops: Number, seconds: Number, cards: Number) -> Numbers:
    """What steps of so many seconds on so many cards add up to, where one clip has so many FLOPs."""
    samples = inputs["train.batch"] * inputs["cards.data"] / seconds
    sample_hours = cards / samples / AN_HOUR
    hours = inputs["train.samples"] * sample_hours
    return {
        "train_step_seconds": seconds,
        "train_samples_per_second": samples,
        "train_total_flops": inputs["train.samples"] * flops,
        "train_card_hours": hours,
        "train_days": hours / cards / A_DAY,
        "train_cost": hours * inputs["card.price"],
        "train_energy": hours * inputs["card.power"],
        "budget_samples": inputs["train.budget"] / (sample_hours * inputs["card.price"]),
    }


def trained(subject: Subject, inputs: Inputs) -> Number:
    """Weights that learn: all, or the adapters."""
    rank = inputs["train.rank"]
    return np.where(rank > 0, adapter_params(subject.shape, rank), subject.params)


def _train_memory(subject: Subject, inputs: Inputs, rows: Number, frames: Number, places: Number) -> Numbers:
    shape, size = subject.shape, inputs["bytes.activation"]
    fsdp, tensor = inputs["cards.fsdp"], inputs["cards.tensor"]
    adapts = inputs["train.rank"] > 0
    held = trained(subject, inputs) / (fsdp * tensor)
    frozen = np.where(adapts, subject.params * inputs["bytes.weight"] / (fsdp * tensor), 0.0)
    block = subject.params / shape.layers / tensor * np.where(adapts, inputs["bytes.weight"], size)
    # Copies in the format of the products; of shards, those of the blocks that work.
    low = np.where(fsdp > 1, GATHERED * block, np.where(size < WEIGHT, held * size, 0.0))
    batch = inputs["train.batch"] / inputs["cards.sequence"]
    kept = kept_of_a_block(subject, inputs, rows * batch)
    inputs_of_blocks = rows * batch * shape.width * size
    every = np.where(inputs["checkpointing.full"], inputs_of_blocks, kept)
    last = np.where(inputs["checkpointing.full"], kept, 0.0)
    # Patches, the head's input as normed and modulated.
    ends = frames * places * batch * (3 * shape.width + 2 * shape.patch_values) * size
    # Gradients of the last block's hidden values, while those values are still there.
    working = rows * batch * size * (2 * shape.hidden / tensor + 2 * shape.width)
    activations = shape.layers * every + last + ends + working
    weights, gradients = held * WEIGHT + frozen, held * GRADIENT
    moments, average = held * MOMENTS, held * AVERAGE
    return {
        "train_weights": weights + low,
        "train_gradients": gradients,
        "train_moments": moments,
        "train_average": average,
        "train_activations": activations,
        "train_memory": weights + low + moments + average + gradients + activations,
    }


def made_by_a_block(subject: Subject, inputs: Inputs, rows: Number, tensor: Number) -> Number:
    """Bytes that one block makes, and autograd keeps, for so many tokens.

    Args:
        rows: tokens, of all clips.
        tensor: ranks that share its matrices; the bytes are those of each.
    """
    shape, code, size = subject.shape, subject.code, inputs["bytes.activation"]
    width = np.where(size < WEIGHT, code.half_width, code.width)
    width = width - (code.text_width if shape.text != "cross" else 0.0)
    # Queries, keys, values and what attention gives are divided among tensor ranks: 6 d.
    numbers = ((width - 6) + 6 / tensor) * shape.width
    numbers = numbers + (code.hidden + 2 * shape.gated_mlp) * shape.hidden / tensor
    text = code.text_rows * shape.text_tokens * shape.width if shape.text == "cross" else 0.0
    return rows * (numbers * size + _per_head(subject, tensor)) + text * size / tensor


def kept_of_a_block(subject: Subject, inputs: Inputs, rows: Number) -> Number:
    """Bytes that autograd keeps of one block for so many tokens."""
    shape, size, tensor = subject.shape, inputs["bytes.activation"], inputs["cards.tensor"]
    # Of an adapter the thin middle is kept.
    rank, thin = inputs["train.rank"], 8.0 if shape.text == "cross" else 4.0
    spared = NOT_KEPT * shape.width + shape.hidden / tensor
    whole = made_by_a_block(subject, inputs, rows, tensor)
    whole = whole - rows * size * np.where(rank > 0, spared - thin * rank, 0.0)
    # What is kept of products: queries, keys, values, what attention gives, what is projected of it, hidden values.
    products = size * (shape.width + (5 * shape.width + shape.hidden) / tensor)
    products = rows * (products + _per_head(subject, tensor))
    return np.where(inputs["checkpointing.selective"], products, whole)


def _per_head(subject: Subject, tensor: Number) -> Number:
    """Bytes of float32 that attention keeps of a token."""
    return subject.code.per_head * subject.heads * WEIGHT / tensor
