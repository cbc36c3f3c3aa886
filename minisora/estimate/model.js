"use strict";
// The estimate of model.py and cost.py for the page: the same functions, names and order, on plain numbers.
// An input is a number, or a word for a choice; `inputs` is an object by assumption, results one by result.
// Python carries the units and refuses to mix them; here they stand in comments. A test holds the two together.

const BLOCK_WEIGHTS = 18;
const MLP_RATIO = 4;
const DIT_PLACES = 1024;
const ATTENTIONS = ["full", "factorised", "divided"];
const SECONDS_PER_HOUR = 3600, SECONDS_PER_MINUTE = 60, HOURS_PER_DAY = 24, DAYS_PER_MONTH = 30;

// cost.py

function attentionKeys(kind, frames, places) {
  if (kind === "full") return frames * places;
  return (frames + places) * (kind === "factorised" ? 0.5 : 1);
}

// MACs of one pass over F latent frames of P places: tokens S = F P + text, width d.
function forwardMacs(shape, frames, places, kind) {
  const d = shape.width, joint = shape.textTokens;
  const tokens = frames * places + joint;
  const keys = attentionKeys(kind, frames, places) + joint;
  const perToken = (4 + (kind === "divided" ? 4 : 0)) * d * d + 2 * shape.hidden * d;
  return {
    linear: shape.layers * tokens * perToken,
    attention: shape.layers * 2 * tokens * keys * d,
    perSample: shape.layers * 6 * d * d,
  };
}

// model.py: the denoiser

function soraShape(inputs) {
  const aspect = inputs["sora.width_per_layer"];
  const width = Math.cbrt(inputs["sora.params"] * aspect / BLOCK_WEIGHTS);
  return {
    layers: width / aspect,
    width: width,
    hidden: MLP_RATIO * width,
    textTokens: inputs["sora.text_tokens"],
  };
}

function tokenGrid(inputs) { // [latent frames F, places P of each]
  const frames = inputs["sora.seconds"] * inputs["sora.fps"] / inputs["sora.vae_frames"];
  const cell = inputs["sora.vae_pixels"] * inputs["sora.patch"];
  return [frames, inputs["sora.height"] * inputs["sora.width"] / cell ** 2];
}

function soraPass(inputs, frames, kind) {
  const exact = forwardMacs(soraShape(inputs), frames, tokenGrid(inputs)[1], kind);
  const linear = exact.linear * inputs["cost.linear"];
  const attention = exact.attention * inputs["cost.attention"];
  const total = linear + attention + exact.perSample * inputs["cost.per_sample"];
  return { total: total, attentionShare: attention / total };
}

function scaledDitMacs(inputs, frames) {
  let ratio = inputs["sora.params"] / inputs["dit.params"];
  if (inputs["sora.round_size_ratio"]) ratio = Math.max(1, roundHalfEven(ratio));
  return inputs["dit.macs_per_step"] * ratio * frames * tokenGrid(inputs)[1] / DIT_PLACES;
}

function soraMacs(inputs, frames) {
  const kind = inputs["sora.attention"];
  return kind === "per_frame" ? scaledDitMacs(inputs, frames) : soraPass(inputs, frames, kind).total;
}

// Compute, hardware, energy, money.

function flops(inputs, macs) {
  return macs * inputs["count.flops_per_mac"];
}

function gpuHours(inputs, compute, utilisation) {
  return compute / (inputs["hardware.peak"] * inputs[utilisation]) / SECONDS_PER_HOUR;
}

function gpuMonths(hours) {
  return hours / HOURS_PER_DAY / DAYS_PER_MONTH;
}

function energy(inputs, hours) {
  return hours * inputs["hardware.power"] * inputs["hardware.power_overhead"];
}

function cost(inputs, hours) {
  return hours * inputs["hardware.price"];
}

// The four parts of the report.

function ditTraining(inputs) {
  const samples = inputs["dit.training_steps"] * inputs["dit.batch"];
  const compute = flops(inputs, inputs["train.passes"] * samples * inputs["dit.macs_per_step"]);
  return inputs["dit.round_training_compute"] ? roundToDigits(compute, 1) : compute;
}

function training(inputs, data) {
  const share = inputs["sora.video_share"];
  let mix = share * soraMacs(inputs, tokenGrid(inputs)[0]);
  if (inputs["sora.count_images"]) mix += (1 - share) * soraMacs(inputs, 1);
  return ditTraining(inputs) * data * mix / inputs["dit.macs_per_step"];
}

function videoCompute(inputs) { // FLOP/sample, by part
  const passes = inputs["serve.steps"] * inputs["serve.guidance_passes"];
  const pixels = inputs["sora.seconds"] * inputs["sora.fps"] * inputs["sora.height"] * inputs["sora.width"];
  return {
    denoise: flops(inputs, soraMacs(inputs, tokenGrid(inputs)[0]) * passes),
    decode: flops(inputs, inputs["serve.decode_macs_per_pixel"] * pixels),
    text: flops(inputs, inputs["serve.text_encoder_params"] * inputs["sora.text_tokens"] * inputs["serve.guidance_passes"]),
  };
}

function dataMultiplier(inputs) {
  const low = inputs["sora.data_multiplier_low"], high = inputs["sora.data_multiplier_high"];
  return low * (high / low) ** inputs["sora.data_position"];
}

function estimate(inputs) {
  const results = {};

  // DiT: one step, one image, the whole training.
  const ditStep = flops(inputs, inputs["dit.macs_per_step"]);
  const ditImage = ditStep * inputs["dit.sampling_steps"] * inputs["dit.guidance_passes"];
  const ditTrain = ditTraining(inputs);
  const ditHours = gpuHours(inputs, ditTrain, "train.utilisation");
  results.dit_compute_per_step = ditStep; // FLOP/pass
  results.dit_compute_per_image = ditImage; // FLOP/sample
  results.dit_training_images = inputs["dit.training_steps"] * inputs["dit.batch"]; // sample
  results.dit_training_compute = ditTrain; // FLOP
  results.dit_training_gpu_days = ditHours / HOURS_PER_DAY; // GPU*day
  results.dit_training_gpu_months = gpuMonths(ditHours); // GPU*month
  results.dit_break_even_images = ditTrain / ditImage; // sample

  // Sora: one pass, by every kind of attention.
  const [frames, places] = tokenGrid(inputs);
  results.latent_frames = frames;
  results.tokens_per_clip = frames * places; // token
  results.size_multiplier = inputs["sora.params"] / inputs["dit.params"];
  const step = soraMacs(inputs, frames);
  results.sora_macs_per_step = step; // MAC/pass
  results.sora_compute_per_step = flops(inputs, step); // FLOP/pass
  const reported = scaledDitMacs(inputs, frames);
  results.sora_macs_per_step_per_frame = reported; // MAC/pass
  for (const kind of ATTENTIONS) {
    const one = soraPass(inputs, frames, kind);
    results["sora_macs_per_step_" + kind] = one.total; // MAC/pass
    results["sora_step_over_per_frame_" + kind] = one.total / reported;
    results["attention_share_" + kind] = one.attentionShare;
  }

  // Sora: one clip.
  const parts = videoCompute(inputs);
  const video = parts.denoise + parts.decode + parts.text;
  const minutes = inputs["sora.seconds"] / SECONDS_PER_MINUTE;
  const videoHours = gpuHours(inputs, video, "serve.utilisation");
  const speed = minutes / videoHours;
  results.sora_compute_per_video = video; // FLOP/sample
  results.sora_decode_compute_per_video = parts.decode;
  results.sora_text_compute_per_video = parts.text;
  results.sora_compute_per_minute = video / minutes; // FLOP/min
  results.sora_minutes_per_gpu_hour = speed; // min/GPU/h
  results.sora_minutes_per_gpu_day = speed * HOURS_PER_DAY; // min/GPU/day
  results.sora_cost_per_minute = cost(inputs, videoHours) / minutes; // $/min
  results.sora_energy_per_minute = energy(inputs, videoHours) / minutes; // kW*h/min

  // Sora: training, and where serving overtakes it.
  for (const [end, data] of [
    ["", dataMultiplier(inputs)],
    ["_low", inputs["sora.data_multiplier_low"]],
    ["_high", inputs["sora.data_multiplier_high"]],
  ]) {
    const compute = training(inputs, data);
    const hours = gpuHours(inputs, compute, "train.utilisation");
    results["sora_training_compute" + end] = compute; // FLOP
    results["sora_training_gpu_months" + end] = gpuMonths(hours); // GPU*month
    results["sora_training_cost" + end] = cost(inputs, hours); // $
    results["sora_training_energy" + end] = energy(inputs, hours); // kW*h
    results["sora_break_even" + end] = compute / (video / minutes); // min
  }
  const seen = inputs["dit.training_steps"] * inputs["dit.batch"] * dataMultiplier(inputs);
  const videos = seen * inputs["sora.video_share"];
  results.sora_training_videos = videos;
  results.sora_training_hours_of_video = videos * inputs["sora.seconds"] / 3600; // h
  results.sora_training_over_movie_gen = results.sora_training_compute / inputs["compare.movie_gen_flops"];

  // Other models, per output, in the unit that the preset calls FLOPs.
  const token = inputs["llm.flops_per_parameter"] * inputs["llm.tokens"];
  results.llama2_70b_compute_per_output = inputs["llm.llama2_params"] * token; // FLOP
  results.gpt4_compute_per_output = inputs["llm.gpt4_active_params"] * token; // FLOP
  results.sora_over_gpt4 = video / results.gpt4_compute_per_output;
  results.dit_over_llama2_70b = ditImage / results.llama2_70b_compute_per_output;

  // Demand.
  const tiktok = inputs["demand.tiktok_videos"] * inputs["demand.tiktok_seconds"] / SECONDS_PER_MINUTE;
  const youtube = inputs["demand.youtube_minutes"];
  const made = tiktok * inputs["demand.tiktok_share"] + youtube * inputs["demand.youtube_share"];
  const gpus = made / results.sora_minutes_per_gpu_day;
  const peak = gpus * inputs["demand.utilisation_factor"] * inputs["demand.peak_factor"]
    * inputs["demand.candidates_factor"];
  results.tiktok_minutes_per_day = tiktok; // min/day
  results.ai_minutes_per_day = made; // min/day
  results.demand_gpus = gpus; // GPU
  results.peak_demand_gpus = peak; // GPU
  results.peak_demand_power = peak * inputs["hardware.power"]; // kW
  return results;
}

// A tie goes to the even neighbour, as in numpy.
function roundHalfEven(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

function roundToDigits(value, digits) {
  const scale = 10 ** (Math.floor(Math.log10(Math.abs(value))) - digits + 1);
  return roundHalfEven(value / scale) * scale;
}
