//! What an expression gives, as far as it is known before an event is seen, and which operations fit.
//! Must not hold values.

use std::fmt;

use super::node::{Function, Operator};

/// A type of values; [`Kind::Any`] where only the event tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Known only when an event is seen.
    Any,
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// An integer of 64 bits.
    Int,
    /// A binary double.
    Double,
    /// A text.
    Text,
    /// A list.
    List,
    /// A map.
    Map,
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Any => "any value",
            Self::Null => "null",
            Self::Bool => "a boolean",
            Self::Int => "an integer",
            Self::Double => "a double",
            Self::Text => "a text",
            Self::List => "a list",
            Self::Map => "a map",
        })
    }
}

impl Kind {
    /// Whether a value of this kind can be one of `other`.
    pub fn fits(self, other: Self) -> bool {
        self == other || self == Self::Any || other == Self::Any
    }

    /// Whether it can be a number.
    pub fn may_be_number(self) -> bool {
        matches!(self, Self::Any | Self::Int | Self::Double)
    }

    /// What is left when either of two may be the result.
    pub fn or(self, other: Self) -> Self {
        if self == other { self } else { Self::Any }
    }

    /// Kind of `left operator right`; nothing when no operation fits.
    pub fn of_operation(operator: Operator, left: Self, right: Self) -> Option<Self> {
        use Operator::{Add, Divide, Modulo, Multiply, Subtract};
        let numbers = left.may_be_number() && right.may_be_number();
        let number = match (left, right) {
            (Self::Int, Self::Int) => Self::Int,
            (Self::Double, _) | (_, Self::Double) => Self::Double,
            (_, _) => Self::Any,
        };
        match operator {
            Add if numbers => Some(if left == Self::Any && right == Self::Any {
                Self::Any
            } else {
                number
            }),
            Add => match (left, right) {
                (Self::Text, Self::Text | Self::Any) | (Self::Any, Self::Text) => Some(Self::Text),
                (Self::List, Self::List | Self::Any) | (Self::Any, Self::List) => Some(Self::List),
                (_, _) => None,
            },
            Subtract | Multiply | Divide => numbers.then_some(number),
            Modulo => (left.fits(Self::Int) && right.fits(Self::Int)).then_some(Self::Int),
        }
    }

    /// Whether `<` and the like can compare the two.
    pub fn can_be_ordered(left: Self, right: Self) -> bool {
        (left.may_be_number() && right.may_be_number())
            || [Self::Text, Self::Bool]
                .into_iter()
                .any(|kind| left.fits(kind) && right.fits(kind))
    }

    /// Kind of a function's result; nothing when an argument does not fit.
    pub fn of_call(function: Function, arguments: &[Self]) -> Option<Self> {
        let first = arguments.first().copied().unwrap_or(Self::Any);
        let texts = arguments.iter().all(|kind| kind.fits(Self::Text));
        match function {
            Function::Size => matches!(first, Self::Any | Self::Text | Self::List | Self::Map).then_some(Self::Int),
            Function::StartsWith | Function::EndsWith | Function::Contains => texts.then_some(Self::Bool),
            Function::LowerAscii | Function::UpperAscii => texts.then_some(Self::Text),
            Function::Int => matches!(first, Self::Any | Self::Int | Self::Double | Self::Text).then_some(Self::Int),
            Function::Double => {
                matches!(first, Self::Any | Self::Int | Self::Double | Self::Text).then_some(Self::Double)
            }
            Function::Text => {
                matches!(first, Self::Any | Self::Int | Self::Double | Self::Text | Self::Bool).then_some(Self::Text)
            }
            Function::Bool => matches!(first, Self::Any | Self::Bool | Self::Text).then_some(Self::Bool),
        }
    }
}
