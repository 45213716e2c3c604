//! A template as a program of the engine, with a guard on each operation that could grow without
//! bound.
//!
//! Takes a template's text; gives its instructions. The engine's parser makes a tree of the text.
//! This module rebuilds the tree so that filters, methods, slices, comparisons and literals call
//! the operations of [`operations`](super::operations), which bound their results and carry the
//! marks on data. Templates are code from strangers: their size and the tokens of each tag are
//! counted before parsing, and they are parsed on a stack of known size.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::{Mutex, OnceLock, PoisonError};

use minijinja::machinery::ast::{
    self, BinOpKind, CallArg, CallType, CompareOpKind, Expr, Spanned, Stmt,
};
use minijinja::machinery::{self, CodeGenerator, Instructions, Span, Token};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};

/// The most bytes of a template.
const MAX_TEXT: usize = 1 << 20;
/// The most tokens of a template, and of one tag: they bound the depth of the tree.
const MAX_TOKENS: usize = 20_000;
const MAX_TAG_TOKENS: usize = 2_000;
/// The stack for parsing a template. A tree as deep as `MAX_TOKENS` allows needs about a quarter of
/// it.
const STACK: usize = 128 << 20;

const NAME: &str = "template";

/// A template's instructions.
pub(crate) struct Program {
    main: Instructions<'static>,
    blocks: BTreeMap<&'static str, Instructions<'static>>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("text", &self.main.source()).finish_non_exhaustive()
    }
}

impl Program {
    /// Compiles `text`. Returns an error if it is wrong, too large or too deep.
    pub(crate) fn compile(text: &str, syntax: &SyntaxConfig) -> Result<Self, Error> {
        refuse_large(text, syntax)?;
        let text = interned(text);
        let compile = || {
            let tree = machinery::parse(text, NAME, syntax.clone())?;
            let mut code = CodeGenerator::new(NAME, text);
            code.compile_stmt(&statement(&tree));
            let (main, blocks) = code.finish();
            Ok(Self { main, blocks })
        };
        // On a thread of its own: the stack of the calling thread may be small.
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, compile);
            let thread =
                thread.map_err(|error| wrong(format!("no thread to read it on: {error}")))?;
            thread.join().unwrap_or_else(|_| Err(wrong("the template engine failed on it")))
        })
    }

    /// Renders the template with the operations of `environment`.
    pub(crate) fn render(
        &self,
        environment: &Environment<'static>,
        fields: Value,
    ) -> Result<String, Error> {
        let mut text = String::new();
        let mut out = machinery::make_string_output(&mut text);
        machinery::eval(environment, &self.main, fields, &self.blocks, &mut out, AutoEscape::None)?;
        Ok(text)
    }
}

/// Returns an error about a whole template.
fn wrong(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::SyntaxError, why.into())
}

/// Returns a copy of `text` that lives as long as the process, one for each distinct text. The
/// engine's instructions borrow it.
fn interned(text: &str) -> &'static str {
    static TEXTS: OnceLock<Mutex<HashSet<&'static str>>> = OnceLock::new();
    let mut texts =
        TEXTS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = texts.get(text) {
        return known;
    }
    let text: &'static str = Box::leak(text.to_owned().into_boxed_str());
    texts.insert(text);
    text
}

/// Refuses a template whose tree could be too deep for the parser's stack.
fn refuse_large(text: &str, syntax: &SyntaxConfig) -> Result<(), Error> {
    if text.len() > MAX_TEXT {
        return Err(wrong(format!("it has {} bytes, a template may have {MAX_TEXT}", text.len())));
    }
    let (mut all, mut tag) = (0, 0);
    // Text that the lexer cannot read is left to the parser, which describes the fault.
    for (token, span) in machinery::tokenize(text, false, syntax.clone()).map_while(Result::ok) {
        let starts =
            matches!(token, Token::TemplateData(_) | Token::VariableStart | Token::BlockStart);
        tag = if starts { 0 } else { tag + 1 };
        all += 1;
        if tag > MAX_TAG_TOKENS {
            let line = span.start_line;
            return Err(wrong(format!(
                "a tag has more than {MAX_TAG_TOKENS} names and operators (line {line})"
            )));
        }
    }
    if all > MAX_TOKENS {
        return Err(wrong(format!(
            "it has {all} names and operators, a template may have {MAX_TOKENS}"
        )));
    }
    Ok(())
}

type Tree = Expr<'static>;

/// Returns a statement with guards on its operations.
fn statement(node: &Stmt<'static>) -> Stmt<'static> {
    match node {
        Stmt::Template(inner) => {
            Stmt::Template(same(inner, ast::Template { children: statements(&inner.children) }))
        }
        // Shown values pass through `__text`, which pays for them and marks their data.
        Stmt::EmitExpr(inner) => {
            Stmt::EmitExpr(same(inner, ast::EmitExpr { expr: shown(&inner.expr) }))
        }
        Stmt::EmitRaw(inner) => Stmt::EmitRaw(same(inner, ast::EmitRaw { raw: inner.raw })),
        Stmt::ForLoop(inner) => Stmt::ForLoop(same(inner, loop_of(inner))),
        Stmt::IfCond(inner) => Stmt::IfCond(same(
            inner,
            ast::IfCond {
                expr: expression(&inner.expr),
                true_body: statements(&inner.true_body),
                false_body: statements(&inner.false_body),
            },
        )),
        Stmt::WithBlock(_) | Stmt::Set(_) | Stmt::SetBlock(_) => assignment(node),
        Stmt::AutoEscape(inner) => Stmt::AutoEscape(same(
            inner,
            ast::AutoEscape { enabled: expression(&inner.enabled), body: statements(&inner.body) },
        )),
        Stmt::FilterBlock(inner) => Stmt::FilterBlock(same(
            inner,
            ast::FilterBlock {
                filter: shown(&inner.filter),
                filter_span: inner.filter_span,
                body: statements(&inner.body),
            },
        )),
        Stmt::Macro(inner) => Stmt::Macro(same(inner, macro_of(inner))),
        Stmt::CallBlock(inner) => Stmt::CallBlock(same(
            inner,
            ast::CallBlock {
                call: same(&inner.call, call_of(&inner.call)),
                call_expr_span: inner.call_expr_span,
                macro_decl: same(&inner.macro_decl, macro_of(&inner.macro_decl)),
            },
        )),
        Stmt::Continue(inner) => Stmt::Continue(same(inner, ast::Continue)),
        Stmt::Break(inner) => Stmt::Break(same(inner, ast::Break)),
        Stmt::Do(inner) => {
            Stmt::Do(same(inner, ast::Do { call: same(&inner.call, call_of(&inner.call)) }))
        }
        other => statement_of_many(other),
    }
}

/// Rebuilds a loop. `__iter` makes a text a list, and marks its characters.
fn loop_of(node: &ast::ForLoop<'static>) -> ast::ForLoop<'static> {
    ast::ForLoop {
        target: expression_as_target(&node.target),
        iter: guarded("__iter", expression(&node.iter)),
        filter_expr: node.filter_expr.as_ref().map(expression),
        recursive: node.recursive,
        body: statements(&node.body),
        else_body: statements(&node.else_body),
    }
}

/// Rebuilds the statements that assign names.
fn assignment(node: &Stmt<'static>) -> Stmt<'static> {
    match node {
        Stmt::WithBlock(inner) => {
            let assignments = inner
                .assignments
                .iter()
                .map(|(name, value)| (expression_as_target(name), expression(value)));
            let assignments = assignments.collect();
            Stmt::WithBlock(same(
                inner,
                ast::WithBlock { assignments, body: statements(&inner.body) },
            ))
        }
        Stmt::Set(inner) => {
            // Only a namespace carries a value from one turn of a loop to the next.
            let keeps = matches!(inner.target, Expr::GetAttr(_) | Expr::List(_) | Expr::Tuple(_));
            let value = expression(&inner.expr);
            let expr = if keeps { guarded("__kept", value) } else { value };
            Stmt::Set(same(inner, ast::Set { target: expression_as_target(&inner.target), expr }))
        }
        Stmt::SetBlock(inner) => Stmt::SetBlock(same(
            inner,
            ast::SetBlock {
                target: expression_as_target(&inner.target),
                filter: inner.filter.as_ref().map(|filter| guarded("__kept", expression(filter))),
                body: statements(&inner.body),
            },
        )),
        _ => unreachable!("the other statements are handled before"),
    }
}

/// Rebuilds the statements that name other templates. There are no other templates here.
fn statement_of_many(node: &Stmt<'static>) -> Stmt<'static> {
    match node {
        // A block is legal in a lone template, and renders where it stands.
        Stmt::Block(inner) => Stmt::Block(same(
            inner,
            ast::Block {
                name: inner.name,
                required: inner.required,
                body: statements(&inner.body),
            },
        )),
        Stmt::Import(inner) => Stmt::Import(same(
            inner,
            ast::Import { expr: expression(&inner.expr), name: expression_as_target(&inner.name) },
        )),
        Stmt::FromImport(inner) => {
            let names = inner.names.iter().map(|(name, alias)| {
                (expression_as_target(name), alias.as_ref().map(expression_as_target))
            });
            Stmt::FromImport(same(
                inner,
                ast::FromImport { expr: expression(&inner.expr), names: names.collect() },
            ))
        }
        Stmt::Extends(inner) => {
            Stmt::Extends(same(inner, ast::Extends { name: expression(&inner.name) }))
        }
        Stmt::Include(inner) => Stmt::Include(same(
            inner,
            ast::Include { name: expression(&inner.name), ignore_missing: inner.ignore_missing },
        )),
        _ => unreachable!("the other statements are handled before"),
    }
}

/// Rebuilds a list of statements.
fn statements(nodes: &[Stmt<'static>]) -> Vec<Stmt<'static>> {
    nodes.iter().map(statement).collect()
}

/// Rebuilds a macro.
fn macro_of(node: &ast::Macro<'static>) -> ast::Macro<'static> {
    ast::Macro {
        name: node.name,
        args: node.args.iter().map(expression_as_target).collect(),
        defaults: node.defaults.iter().map(expression).collect(),
        body: statements(&node.body),
    }
}

/// Rebuilds a call: the call stays, its arguments get guards.
fn call_of(node: &ast::Call<'static>) -> ast::Call<'static> {
    ast::Call { expr: expression(&node.expr), args: arguments(&node.args) }
}

/// Rebuilds the target of an assignment. It holds no operation, except in the object whose
/// attribute is set.
fn expression_as_target(node: &Tree) -> Tree {
    match node {
        Expr::List(inner) => Expr::List(same(
            inner,
            ast::List { items: inner.items.iter().map(expression_as_target).collect() },
        )),
        Expr::Tuple(inner) => Expr::Tuple(same(
            inner,
            ast::Tuple { items: inner.items.iter().map(expression_as_target).collect() },
        )),
        other => expression(other),
    }
}

/// Returns an expression with guards on its operations.
fn expression(node: &Tree) -> Tree {
    match node {
        Expr::Var(inner) => Expr::Var(same(inner, ast::Var { id: inner.id })),
        Expr::Const(inner) => Expr::Const(same(inner, ast::Const { value: inner.value.clone() })),
        Expr::Slice(inner) => slice(inner),
        // The kind cannot be copied, so it is made again.
        Expr::UnaryOp(inner) => {
            let is_not = matches!(inner.op, ast::UnaryOpKind::Not);
            let op = if is_not { ast::UnaryOpKind::Not } else { ast::UnaryOpKind::Neg };
            Expr::UnaryOp(same(inner, ast::UnaryOp { op, expr: expression(&inner.expr) }))
        }
        Expr::BinOp(inner) => binary(inner),
        Expr::Compare(inner) => compare(inner),
        Expr::IfExpr(inner) => Expr::IfExpr(same(
            inner,
            ast::IfExpr {
                test_expr: expression(&inner.test_expr),
                true_expr: expression(&inner.true_expr),
                false_expr: inner.false_expr.as_ref().map(expression),
            },
        )),
        Expr::Filter(inner) => filter_of(inner),
        // A test compares, so it must not see marks.
        Expr::Test(inner) => Expr::Test(same(
            inner,
            ast::Test {
                name: inner.name,
                expr: bare(&inner.expr),
                args: arguments_with(&inner.args, bare),
            },
        )),
        Expr::GetAttr(inner) => Expr::GetAttr(same(
            inner,
            ast::GetAttr { expr: expression(&inner.expr), name: inner.name },
        )),
        Expr::GetItem(inner) => item(inner),
        Expr::Call(inner) => call(inner),
        Expr::List(_) | Expr::Tuple(_) | Expr::Map(_) => kept(collection(node)),
    }
}

/// Rebuilds a slice as a call: the engine's own slices are not bounded.
fn slice(inner: &Spanned<ast::Slice<'static>>) -> Tree {
    let bound =
        |bound: &Option<Tree>| bound.as_ref().map_or_else(|| none(inner.span()), expression);
    let bounds = [bound(&inner.start), bound(&inner.stop), bound(&inner.step)].map(CallArg::Pos);
    filter("__slice", expression(&inner.expr), bounds.into(), inner.span())
}

/// Rebuilds a chain of comparisons: each side is compared without marks, and by an operation of ours
/// where order is asked for.
fn compare(inner: &Spanned<ast::Compare<'static>>) -> Tree {
    let orders = inner.ops.iter().any(|comparison| is_order(comparison.op));
    let names: Option<Vec<_>> = inner.ops.iter().map(|comparison| name_of(comparison.op)).collect();
    if let Some(names) = names.filter(|_| orders) {
        let args = names.into_iter().zip(&inner.ops).flat_map(|(name, comparison)| {
            [constant(name, inner.span()), bare(&comparison.expr)].map(CallArg::Pos)
        });
        return filter("__compared", bare(&inner.expr), args.collect(), inner.span());
    }
    let ops = inner
        .ops
        .iter()
        .map(|comparison| ast::CompareOp { op: comparison.op, expr: bare(&comparison.expr) })
        .collect();
    Expr::Compare(same(inner, ast::Compare { expr: bare(&inner.expr), ops }))
}

/// Returns whether a comparison asks for order.
fn is_order(op: CompareOpKind) -> bool {
    use CompareOpKind::{Gt, Gte, Lt, Lte};
    matches!(op, Lt | Lte | Gt | Gte)
}

/// Returns the name of a comparison for `__compared`; `None` if it looks for a member.
fn name_of(op: CompareOpKind) -> Option<&'static str> {
    match op {
        CompareOpKind::Eq => Some("=="),
        CompareOpKind::Ne => Some("!="),
        CompareOpKind::Lt => Some("<"),
        CompareOpKind::Lte => Some("<="),
        CompareOpKind::Gt => Some(">"),
        CompareOpKind::Gte => Some(">="),
        CompareOpKind::In | CompareOpKind::NotIn => None,
    }
}

/// Rebuilds a filter as a call of `__filter` with the filter's name before its arguments.
fn filter_of(inner: &Spanned<ast::Filter<'static>>) -> Tree {
    let mut args = vec![CallArg::Pos(constant(inner.name, inner.span()))];
    args.extend(arguments(&inner.args));
    let expr = inner.expr.as_ref().map(expression);
    Expr::Filter(Spanned::new(ast::Filter { name: "__filter", expr, args }, inner.span()))
}

/// Rebuilds a lookup by key or index.
fn item(inner: &Spanned<ast::GetItem<'static>>) -> Tree {
    // A text is never looked up by a name, so only other keys need its characters as a list.
    let is_name = matches!(&inner.subscript_expr, Expr::Const(key) if key.value.as_str().is_some());
    let expr = expression(&inner.expr);
    let expr = if is_name { expr } else { guarded("__indexed", expr) };
    Expr::GetItem(same(inner, ast::GetItem { expr, subscript_expr: bare(&inner.subscript_expr) }))
}

/// Rebuilds a literal list, tuple or map.
fn collection(node: &Tree) -> Tree {
    match node {
        Expr::List(inner) => Expr::List(same(
            inner,
            ast::List { items: inner.items.iter().map(expression).collect() },
        )),
        Expr::Tuple(inner) => Expr::Tuple(same(
            inner,
            ast::Tuple { items: inner.items.iter().map(expression).collect() },
        )),
        Expr::Map(inner) => {
            let keys = inner.keys.iter().map(bare).collect();
            let values = inner.values.iter().map(expression).collect();
            Expr::Map(same(inner, ast::Map { keys, values }))
        }
        _ => unreachable!("the other expressions are handled before"),
    }
}

/// Rebuilds a binary operation.
fn binary(inner: &Spanned<ast::BinOp<'static>>) -> Tree {
    let with = |wrap: fn(&Tree) -> Tree| {
        Expr::BinOp(same(
            inner,
            ast::BinOp { op: inner.op, left: wrap(&inner.left), right: wrap(&inner.right) },
        ))
    };
    match inner.op {
        BinOpKind::Lt => ordered(inner, "<"),
        BinOpKind::Lte => ordered(inner, "<="),
        BinOpKind::Gt => ordered(inner, ">"),
        BinOpKind::Gte => ordered(inner, ">="),
        op if is_comparison(op) => with(bare),
        BinOpKind::Concat => with(shown),
        // The engine joins and repeats lists lazily.
        BinOpKind::Add | BinOpKind::Mul if !is_text(&inner.left) && !is_text(&inner.right) => {
            guarded("__solid", with(expression))
        }
        _ => with(expression),
    }
}

/// Rebuilds a comparison by order.
fn ordered(inner: &Spanned<ast::BinOp<'static>>, name: &'static str) -> Tree {
    let args = [constant(name, inner.span()), bare(&inner.right)].map(CallArg::Pos);
    filter("__compared", bare(&inner.left), args.into(), inner.span())
}

/// Returns whether an operator compares, but not by order.
fn is_comparison(op: BinOpKind) -> bool {
    matches!(op, BinOpKind::Eq | BinOpKind::Ne | BinOpKind::In)
}

/// Rebuilds a call of a function, a method or a block.
fn call(inner: &Spanned<ast::Call<'static>>) -> Tree {
    match inner.identify_call() {
        // Calls that give a string, or belong to the loop itself.
        CallType::Function("super" | "caller" | "loop") | CallType::Block(_) => {
            Expr::Call(same(inner, call_of(inner)))
        }
        CallType::Method(Expr::Var(var), _) if var.id == "loop" => {
            Expr::Call(same(inner, call_of(inner)))
        }
        CallType::Method(object, name) => {
            let mut args = vec![CallArg::Pos(constant(name, inner.span()))];
            args.extend(arguments(&inner.args));
            filter("__method", expression(object), args, inner.span())
        }
        CallType::Function(_) | CallType::Object(_) => {
            guarded("__solid", Expr::Call(same(inner, call_of(inner))))
        }
    }
}

/// Rebuilds arguments.
fn arguments(args: &[CallArg<'static>]) -> Vec<CallArg<'static>> {
    arguments_with(args, expression)
}

/// Rebuilds arguments, each value through `wrap`.
fn arguments_with(args: &[CallArg<'static>], wrap: fn(&Tree) -> Tree) -> Vec<CallArg<'static>> {
    let argument = |arg: &CallArg<'static>| match arg {
        CallArg::Pos(value) => CallArg::Pos(wrap(value)),
        CallArg::Kwarg(name, value) => CallArg::Kwarg(name, wrap(value)),
        CallArg::PosSplat(value) => CallArg::PosSplat(expression(value)),
        CallArg::KwargSplat(value) => CallArg::KwargSplat(expression(value)),
    };
    args.iter().map(argument).collect()
}

/// Rebuilds an expression whose text is compared or counted, not shown.
fn bare(node: &Tree) -> Tree {
    if is_constant(node) { expression(node) } else { guarded("__bare", expression(node)) }
}

/// Rebuilds an expression whose text is shown.
fn shown(node: &Tree) -> Tree {
    if is_text(node) { expression(node) } else { guarded("__text", expression(node)) }
}

/// Guards a list or a map, which must not nest without end.
fn kept(node: Tree) -> Tree {
    if node.as_const().is_some() { node } else { guarded("__kept", node) }
}

/// Returns whether an expression is a constant.
fn is_constant(node: &Tree) -> bool {
    matches!(node, Expr::Const(_))
}

/// Returns whether an expression is a string that the template spells.
fn is_text(node: &Tree) -> bool {
    matches!(node, Expr::Const(inner) if inner.value.as_str().is_some())
}

/// Wraps an expression in the operation `name`.
fn guarded(name: &'static str, node: Tree) -> Tree {
    let span = node.span();
    filter(name, node, Vec::new(), span)
}

/// Applies the operation `name` with arguments.
fn filter(name: &'static str, node: Tree, args: Vec<CallArg<'static>>, span: Span) -> Tree {
    Expr::Filter(Spanned::new(ast::Filter { name, expr: Some(node), args }, span))
}

/// Returns a constant string.
fn constant(value: &'static str, span: Span) -> Tree {
    Expr::Const(Spanned::new(ast::Const { value: Value::from(value) }, span))
}

/// Returns a constant null.
fn none(span: Span) -> Tree {
    Expr::Const(Spanned::new(ast::Const { value: Value::from(()) }, span))
}

/// Returns `node` with the span of `old`.
fn same<T, U>(old: &Spanned<T>, node: U) -> Spanned<U> {
    Spanned::new(node, old.span())
}
