/**
 * peft's rules for which modules of a model carry adapters: target_modules,
 * exclude_modules, layers_to_transform, modules_to_save (tuners_utils.check_target_module_exists).
 * @module
 */
import { ConfigError } from "../core/errors.ts";
import { type AdapterSettings, expression, isNamed, type Names } from "../formats/adapter.ts";

/**
 * Whether a module carries an adapter.
 * @param targets the settings' own, or what `all-linear` stands for
 */
export function isAdapted(module: string, targets: Names, s: AdapterSettings): boolean {
  if (s.excludeModules && isNamed(module, s.excludeModules)) return false;
  // What is trained whole is not adapted, nor is what lies in it.
  if (s.modulesToSave.some((m) => expression(`(.*\\.)?${m}(\\..*)?`).test(module))) return false;
  // A list's whole names count in every layer.
  const everywhere = typeof targets === "string" || targets.includes(module);
  return isNamed(module, targets) && (everywhere || inLayers(module, s));
}

function inLayers(module: string, { layersToTransform: layers, layersPattern: lists }: AdapterSettings): boolean {
  if (!layers?.length) return true;
  // Without a pattern the first number counts, whatever the list of layers is called.
  const found = lists?.length
    ? lists.map((list) => new RegExp(`^(?:.*?\\.)?(?:${list})\\.(\\d+)\\.`).exec(module)).find((m) => m)
    : /^.*?\.[^.]*\.(\d+)\./.exec(module);
  return !!found && layers.includes(Number(found[1]));
}

/**
 * @param modules those that can carry an adapter
 * @param all those of every tensor
 * @throws {ConfigError} naming a target that no module answers to
 */
export function refuseUnmatched(targets: Names, modules: readonly string[], all: readonly string[]): void {
  const known = [...new Set(modules.map((m) => m.split(".").at(-1)!))].join(", ");
  for (const t of typeof targets === "string" ? [targets] : targets) {
    const names = typeof targets === "string" ? targets : [t];
    if (modules.some((m) => isNamed(m, names))) continue;
    const why = all.some((m) => isNamed(m, names))
      ? `it is neither a linear layer nor the embedding; name it in modules_to_save to train it whole`
      : `the model has ${known}`;
    throw new ConfigError(`Cannot adapt '${t}': ${why}`);
  }
}
