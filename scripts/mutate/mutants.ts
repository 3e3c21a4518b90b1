/** Plants faults in a source file: all of them at once, each with a switch that is off. */
import ts from "typescript-5.2";

/** A fault that can be switched on. */
export interface Mutant {
  id: number;
  file: string;
  line: number;
  /** Name of the function or member that contains the fault. */
  where: string;
  /** The code before and after, on one line. */
  change: string;
}

/** A source file with all of its faults. `__mutant(id)` of the global scope switches one on. */
export interface MutatedFile {
  source: string;
  mutants: Mutant[];
}

type Operators = Readonly<Partial<Record<ts.SyntaxKind, readonly string[]>>>;
const K = ts.SyntaxKind;

/** What takes the place of each operator. */
const OPERATORS: Operators = {
  [K.LessThanToken]: ["<=", ">="],
  [K.LessThanEqualsToken]: ["<", ">"],
  [K.GreaterThanToken]: [">=", "<="],
  [K.GreaterThanEqualsToken]: [">", "<"],
  [K.EqualsEqualsEqualsToken]: ["!=="],
  [K.ExclamationEqualsEqualsToken]: ["==="],
  [K.AmpersandAmpersandToken]: ["||"],
  [K.BarBarToken]: ["&&"],
  [K.PlusToken]: ["-"],
  [K.MinusToken]: ["+"],
  [K.AsteriskToken]: ["/"],
  [K.SlashToken]: ["*"],
  [K.PercentToken]: ["*"],
  [K.LessThanLessThanToken]: [">>"],
  [K.GreaterThanGreaterThanToken]: ["<<"],
  [K.GreaterThanGreaterThanGreaterThanToken]: ["<<"],
  [K.AmpersandToken]: ["|"],
  [K.BarToken]: ["&"],
  [K.CaretToken]: ["&"],
  [K.PlusEqualsToken]: ["-="],
  [K.MinusEqualsToken]: ["+="],
  [K.BarEqualsToken]: ["&="],
  [K.AmpersandEqualsToken]: ["|="],
  [K.CaretEqualsToken]: ["&="],
};

/** Plants the faults in a file. Their numbers begin at `firstId`. */
export function mutate(file: string, text: string, firstId: number): MutatedFile {
  const tree = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true, ts.ScriptKind.TS);
  const mutants: Mutant[] = [];

  function add(node: ts.Node, before: string, after: string): number {
    const id = firstId + mutants.length;
    const { line } = tree.getLineAndCharacterOfPosition(node.getStart());
    const change = `${oneLine(before)} → ${oneLine(after)}`;
    mutants.push({ id, file, line: line + 1, where: nameAround(node), change });
    return id;
  }

  /** The code of a node, with the faults of its children. */
  function inner(node: ts.Node): string {
    let result = "";
    let end = node.getStart();
    ts.forEachChild(node, (child) => {
      // Modifiers and the like may come before the start of the node's own code.
      if (child.getStart() < end) return;
      result += text.slice(end, child.getStart()) + outer(child);
      end = child.getEnd();
    });
    return result + text.slice(end, node.getEnd());
  }

  /** The code of a node, with its own faults and those of its children. */
  function outer(node: ts.Node): string {
    if (isWithoutFaults(node)) return node.getText();
    const code = inner(node);
    // A block of its own, because an `else` may follow.
    if (isDroppable(node)) return `{ if (!__m(${add(node, node.getText(), "")})) { ${code} } }`;
    if (!ts.isExpression(node)) return code;
    return replacements(node).reduce(
      (rest, after) => `(__m(${add(node, node.getText(), after)}) ? (${after}) : (${rest}))`,
      code,
    );
  }

  const source = `const __m = globalThis.__mutant; ${text.slice(0, tree.getStart())}${inner(tree)}`;
  return { source: source + text.slice(tree.getEnd()), mutants };
}

/** Whether nothing in the node can be wrong in a way that tests should notice: types, imports, messages. */
function isWithoutFaults(node: ts.Node): boolean {
  return ts.isTypeNode(node) || ts.isImportDeclaration(node) || ts.isExportDeclaration(node) ||
    ts.isInterfaceDeclaration(node) || ts.isTypeAliasDeclaration(node) ||
    ts.isTypeParameterDeclaration(node) || ts.isTemplateExpression(node);
}

/** Whether the program is still valid without the statement. */
function isDroppable(node: ts.Node): boolean {
  if (ts.isExpressionStatement(node)) {
    const { expression } = node;
    return !ts.isStringLiteral(expression) &&
      !(ts.isCallExpression(expression) && expression.expression.kind === K.SuperKeyword);
  }
  return ts.isThrowStatement(node) || ts.isBreakOrContinueStatement(node) ||
    (ts.isReturnStatement(node) && node.expression === undefined);
}

/** What may take the place of an expression. */
function replacements(node: ts.Expression): string[] {
  const code = node.getText();
  if (ts.isBinaryExpression(node)) return ofBinary(node);
  if (ts.isPrefixUnaryExpression(node)) {
    if (node.operator === K.ExclamationToken || node.operator === K.MinusToken) {
      return [node.operand.getText()];
    }
  }
  if (ts.isNumericLiteral(node) && !isName(node)) return [`${code} + 1`];
  if (ts.isBigIntLiteral(node) && !isName(node)) return [`${code} + 1n`];
  if (node.kind === K.TrueKeyword) return ["false"];
  if (node.kind === K.FalseKeyword) return ["true"];
  if (isCondition(node)) return [isLoop(node.parent) ? "false" : `!(${code})`];
  if (ts.isArrowFunction(node.parent) && node.parent.body === node && ts.isCallExpression(node)) {
    return ["undefined"];
  }
  return [];
}

function ofBinary(node: ts.BinaryExpression): string[] {
  const { left, operatorToken: { kind }, right, parent } = node;
  // Most of these loops would never end.
  if (ts.isForStatement(parent) && parent.incrementor === node) return [];
  const [a, b] = [left.getText(), right.getText()];
  if (kind === K.QuestionQuestionToken) return [a, b];
  // Strings are only joined.
  if (kind === K.PlusToken && [left, right].some(isString)) return [];
  return OPERATORS[kind]?.map((operator) => `${a} ${operator} ${b}`) ?? [];
}

function isString(node: ts.Node): boolean {
  if (ts.isBinaryExpression(node)) return isString(node.left) || isString(node.right);
  return ts.isStringLiteral(node) || ts.isTemplateExpression(node) ||
    ts.isNoSubstitutionTemplateLiteral(node);
}

/** Whether the literal is the name of a property. */
function isName(node: ts.Node): boolean {
  return (node.parent as ts.NamedDeclaration).name === node;
}

/** Whether the expression decides about a branch or a loop. */
function isCondition(node: ts.Expression): boolean {
  const { parent } = node;
  if (ts.isForStatement(parent) || ts.isConditionalExpression(parent)) {
    return parent.condition === node;
  }
  return (ts.isIfStatement(parent) || ts.isWhileStatement(parent) || ts.isDoStatement(parent)) &&
    parent.expression === node;
}

function isLoop(node: ts.Node): boolean {
  return ts.isForStatement(node) || ts.isWhileStatement(node) || ts.isDoStatement(node);
}

/** The name of the function or member around the node, such as `Turns.take`. */
function nameAround(node: ts.Node): string {
  const names: string[] = [];
  for (let at = node.parent; at !== undefined; at = at.parent) {
    if (ts.isConstructorDeclaration(at)) names.unshift("constructor");
    else if (
      (ts.isFunctionLike(at) || ts.isClassLike(at) || ts.isPropertyDeclaration(at) ||
        (ts.isVariableDeclaration(at) && ts.isSourceFile(at.parent.parent.parent))) && at.name
    ) names.unshift(at.name.getText());
  }
  return names.join(".");
}

function oneLine(code: string): string {
  return code.replace(/\s+/g, " ");
}
