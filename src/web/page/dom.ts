/**
 * Elements, made and kept. Text is only ever set as text, and what could turn its direction or hide in it is made visible:
 * names and reasons are written by peers.
 */
import { printable } from "../../base/readable.ts";

type Content = Node | string;

/** `className` and `content` come from this program; text in them is text. */
export function make<Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  className = "",
  ...content: readonly Content[]
): HTMLElementTagNameMap[Name] {
  const element = document.createElement(name);
  if (className !== "") element.className = className;
  element.append(...content.map((one) => (typeof one === "string" ? printable(one) : one)));
  return element;
}

/** Throws when the page has no such element: page and script do not fit each other. */
export function find<Found extends Element = HTMLElement>(selector: string, within: ParentNode = document): Found {
  const element = within.querySelector<Found>(selector);
  if (element === null) throw new Error(`the page has no ${selector}`);
  return element;
}

/** Touches the page only when something changed, so that a selection stays and nothing is announced twice. */
export function setText(element: Element, text: string): void {
  const shown = printable(text);
  if (element.textContent !== shown) element.textContent = shown;
}

/** Text in which commands stand between backticks, as hints have them. */
export function setWords(element: Element, text: string): void {
  if (element.textContent === printable(text).replaceAll("`", "")) return;
  const parts = text.split("`");
  element.replaceChildren(...parts.map((part, index) => (index % 2 === 0 ? printable(part) : make("code", "", part))));
}

export function setClass(element: Element, className: string): void {
  if (element.className !== className) element.className = className;
}

export interface Row<Item> {
  readonly element: Element;
  show(item: Item): void;
}

/** Children of an element that follow a list: the same item keeps its element, and with it focus and selection. */
export class Rows<Item> {
  readonly #parent: Element;
  readonly #keyOf: (item: Item) => string;
  readonly #makeRow: (item: Item) => Row<Item>;
  /** Bound: items shown. */
  #rows = new Map<string, Row<Item>>();

  constructor(parent: Element, keyOf: (item: Item) => string, makeRow: (item: Item) => Row<Item>) {
    this.#parent = parent;
    this.#keyOf = keyOf;
    this.#makeRow = makeRow;
  }

  show(items: readonly Item[]): void {
    const rows = new Map<string, Row<Item>>();
    for (const item of items) {
      const key = this.#keyOf(item);
      rows.set(key, rows.get(key) ?? this.#rows.get(key) ?? this.#makeRow(item));
      rows.get(key)!.show(item);
    }
    for (const [key, { element }] of this.#rows) if (!rows.has(key)) element.remove();
    this.#rows = rows;
    let place = this.#parent.firstElementChild;
    for (const { element } of rows.values()) {
      if (element === place) place = place.nextElementSibling;
      else this.#parent.insertBefore(element, place);
    }
  }
}

/** A row of a table; `labels` stand beside the values where the table is too wide for the screen. */
export function makeRow(...cells: readonly (readonly [label: string, className: string])[]): {
  row: HTMLTableRowElement;
  cells: readonly HTMLTableCellElement[];
} {
  const row = make("tr");
  row.setAttribute("role", "row");
  const made = cells.map(([label, className]) => {
    const cell = make("td", className);
    cell.setAttribute("role", "cell");
    if (label !== "") cell.dataset.label = label;
    return cell;
  });
  row.append(...made);
  return { row, cells: made };
}

/** Where rows are shown as cards, browsers forget that they are rows unless it is said. */
export function keepTableRoles(): void {
  for (const [selector, role] of TABLE_ROLES) {
    for (const element of document.querySelectorAll(selector)) element.setAttribute("role", role);
  }
}

const TABLE_ROLES = [
  ["table", "table"],
  ["thead, tbody", "rowgroup"],
  ["thead tr", "row"],
  ["th", "columnheader"],
] as const;

/** One of a list of facts. */
export function makeFact(title: string): { readonly element: HTMLElement; readonly value: HTMLElement } {
  const value = make("dd");
  return { element: make("div", "", make("dt", "", title), value), value };
}
