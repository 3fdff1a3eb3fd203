/** Models: opening a model's files, planning what is trained, loading it onto a backend. @module */
export { blockLinears, type LoraOptions, type LoraStart, type TrainPlan } from "./adapter.ts";
export type { Family, GgufExtra, GgufField, HfConfig, ModelConfig, TensorName } from "./config.ts";
export { loadModel, type LoadOptions, type Model, placeWeights, planTraining } from "./load.ts";
export { peftName, readAdapter, writeAdapter } from "./peft.ts";
export { isQuantized, quantizeSource, roundSource } from "./quantized.ts";
export { FAMILIES, familyOf, familyOfGguf, MODEL_TYPES } from "./registry.ts";
export { type ModelSource, openModel, type SourceTensor } from "./source.ts";
