/** The Hugging Face Hub: download with resume, cache and offline mode; upload. @module */
export { defaultCache } from "./cache.ts";
export { downloadDataset, downloadModel, type HubOptions, isDatasetId, isHubId } from "./download.ts";
export { hubToken } from "./token.ts";
export { uploadFolder, type UploadOptions } from "./upload.ts";
