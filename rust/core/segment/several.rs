//! Several documents of one record: those that cannot be made are left out of it, and said.

use super::Rendered;
use crate::schema::Refusal;

/// Makes `count` documents by `make`, each named by `name` where it is refused.
///
/// A refused document is left out if another one is made. Otherwise the record is refused, by the
/// first document that is at fault, or by the first one if the configuration chose every refusal.
pub(super) fn make_each(
    count: usize,
    rendered: &mut Rendered,
    mut make: impl FnMut(usize, &mut Rendered) -> Result<(), Refusal>,
    name: impl Fn(usize) -> String,
) -> Result<(), Refusal> {
    let (mut is_made, mut refused) = (false, Vec::new());
    for nth in 0..count {
        let before = rendered.left_out.len();
        let named =
            |Refusal { reason, why }| Refusal { reason, why: format!("{}: {why}", name(nth)) };
        match make(nth, rendered) {
            Ok(()) => {
                is_made = true;
                let inner = rendered.left_out.split_off(before);
                refused.extend(inner.into_iter().map(named));
            }
            Err(refusal) => refused.push(named(refusal)),
        }
    }
    if is_made {
        rendered.left_out.append(&mut refused);
        return Ok(());
    }
    let fault = refused.iter().position(|refusal| !refusal.reason.is_choice());
    Err(refused.swap_remove(fault.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::DropReason;

    /// Makes a document for each `None`.
    fn made(documents: &[Option<DropReason>]) -> (Result<(), Refusal>, Vec<Refusal>) {
        let mut rendered = Rendered::default();
        let make = |nth: usize, _: &mut Rendered| {
            documents[nth].map_or(Ok(()), |reason| Err(Refusal::new(reason, "why")))
        };
        let result =
            make_each(documents.len(), &mut rendered, make, |nth| format!("element {nth}"));
        (result, rendered.left_out)
    }

    #[test]
    fn a_refused_document_is_left_out_beside_others_and_refuses_its_record_alone() {
        let (empty, choice) = (Some(DropReason::EmptyTarget), Some(DropReason::NotChosen));
        let (result, left_out) = made(&[choice, None, empty]);
        assert_eq!(result, Ok(()));
        let said: Vec<_> = left_out.iter().map(|refusal| refusal.why.as_str()).collect();
        assert_eq!(said, ["element 0: why", "element 2: why"]);
        let (result, left_out) = made(&[choice, empty]);
        assert_eq!(result.unwrap_err(), Refusal::new(DropReason::EmptyTarget, "element 1: why"));
        assert!(left_out.is_empty());
        let (result, _) = made(&[choice, choice]);
        assert_eq!(result.unwrap_err(), Refusal::new(DropReason::NotChosen, "element 0: why"));
    }
}
