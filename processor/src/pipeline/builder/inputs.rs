//! What aggregates look at: filters and inputs, each once however many aggregates share it.
//! Must not hold how rows lie.

use streamagg_crds::resolved::Resolved;

use super::functions;
use crate::aggregation::function::InputType;
use crate::aggregation::layout::{Layout, Source as LayoutSource};
use crate::core::json::FieldTree;
use crate::expression::Program;
use crate::pipeline::derive::Source;

/// A filter of aggregates.
#[derive(Clone, Debug)]
pub(in crate::pipeline) struct Filter {
    pub program: Program,
    /// Where the manifest says it first.
    pub path: String,
}

/// An input of aggregates: it is read where its filter holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pipeline) struct PlannedInput {
    pub source: Source,
    pub input_type: InputType,
    pub filter: Option<usize>,
}

/// Everything that aggregates look at.
#[derive(Clone, Debug, Default)]
pub(in crate::pipeline) struct AggregateInputs {
    pub filters: Vec<Filter>,
    pub list: Vec<PlannedInput>,
    /// Whether some input may be text.
    pub has_scalars: bool,
}

/// The row layout of a job, and the inputs in the order in which the layout names them.
pub(super) fn layout(job: &Resolved, fields: &mut FieldTree) -> (Layout, AggregateInputs) {
    let mut layout = Layout::default();
    let mut inputs = AggregateInputs::default();
    let mut identities: Vec<String> = Vec::new();
    for aggregate in &job.aggregates {
        let filter = aggregate.filter.as_ref().map(|filter| {
            let identity = job.identity_of(filter);
            let known = identities.iter().position(|known| *known == identity);
            let index = known.unwrap_or_else(|| {
                identities.push(identity.clone());
                inputs.filters.push(Filter {
                    program: Program::compile(&filter.root, fields),
                    path: aggregate.filter_path.clone(),
                });
                inputs.filters.len() - 1
            });
            LayoutSource { identity, index }
        });
        let function = functions::compile(&aggregate.function);
        let mut sources = Vec::new();
        for (input, input_type) in aggregate.function.inputs().into_iter().zip(function.inputs()) {
            let planned = PlannedInput {
                source: Source::compile(input, fields),
                input_type: *input_type,
                filter: filter.as_ref().map(|filter| filter.index),
            };
            let known = inputs.list.iter().position(|known| *known == planned);
            let index = known.unwrap_or_else(|| {
                inputs.has_scalars |= *input_type == InputType::Scalar;
                inputs.list.push(planned);
                inputs.list.len() - 1
            });
            sources.push(LayoutSource {
                identity: job.identity(input),
                index,
            });
        }
        let within = aggregate.within.as_deref();
        layout.push_filtered(within, &aggregate.name, &function, &sources, filter.as_ref());
    }
    (layout, inputs)
}
