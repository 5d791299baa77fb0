/** Configuration options as flags of a command line, for those commands that read them. */
import {
  environmentName,
  GROUPS,
  type Group,
  isSwitch,
  type OptionName,
  optionOf,
  optionsOfGroup,
} from '../config/options.ts';
import type { Flag } from './arguments.ts';
import { section } from './help.ts';

export const optionFlags = (names: readonly OptionName[]): Flag[] =>
  names.map((name) => {
    const option = optionOf(name);
    return {
      name,
      placeholder: isSwitch(option) ? '' : option.kind.placeholder,
      help: option.help,
      defaultText: option.defaultText ?? option.defaultNote,
      environment: environmentName(name),
    };
  });

/** The options' part of a help text, by their groups. */
export function optionSections(names: readonly OptionName[]): string[] {
  return (Object.keys(GROUPS) as Group[]).flatMap((group) => {
    const members = optionsOfGroup(group).filter((name) => names.includes(name));
    return members.length === 0 ? [] : [section(GROUPS[group], optionFlags(members))];
  });
}
