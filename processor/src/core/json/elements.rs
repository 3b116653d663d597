//! Takes an array of an event apart: for each element the fields are those of the event, with the element in the place
//! of the array. The document is read once for all that is around the array, and the array once for what is in it.
//! Must not hold: what becomes of an event without elements.

use super::cursor::Cursor;
use super::{FieldTree, JsonError, Kind, Slot};

/// Elements of an event that are taken apart at most.
pub const ELEMENTS_MAX: usize = 10_000;

/// The fields of a tree, divided into those around an array and those within each of its elements.
#[derive(Clone, Debug)]
pub struct Elements {
    /// The array, and what is not within it.
    around: FieldTree,
    /// Slot of the array in `around`.
    array: usize,
    /// Slot of the whole tree for each one of `around`; none for the array.
    around_slots: Vec<Option<usize>>,
    /// What is within an element.
    within: FieldTree,
    within_slots: Vec<usize>,
    /// Slot of the whole tree for the element itself.
    itself: Option<usize>,
}

/// Buffers for one event.
#[derive(Clone, Debug, Default)]
pub struct ElementSlots {
    around: Vec<Slot>,
    within: Vec<Slot>,
    /// The elements in order.
    pub elements: Vec<Slot>,
}

/// What is where the array should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Array {
    /// An array of so many elements as were found.
    Found,
    /// Nothing, or null.
    Missing,
    /// Something else.
    Other(Slot),
    /// An array of more than [`ELEMENTS_MAX`] elements.
    TooLong,
}

impl Elements {
    /// Divides the fields of a tree by the array at `pointer`.
    pub fn new(fields: &FieldTree, pointer: &str) -> Self {
        let mut around = FieldTree::new(fields.strict);
        let mut within = FieldTree::new(false);
        let (mut around_slots, mut within_slots, mut itself) = (Vec::new(), Vec::new(), None);
        let prefix = format!("{pointer}/");
        for (slot, (field, whole)) in fields.pointers.iter().zip(&fields.wholes).enumerate() {
            if field == pointer {
                itself = Some(slot);
            } else if let Some(rest) = field.strip_prefix(&prefix) {
                within.insert(&format!("/{rest}"), *whole);
                within_slots.push(slot);
            } else {
                around.insert(field, *whole);
                around_slots.push(Some(slot));
            }
        }
        let array = around.add_whole(pointer);
        around_slots.push(None);
        Self {
            around,
            array,
            around_slots,
            within,
            within_slots,
            itself,
        }
    }

    /// Pointer of the array.
    pub fn pointer(&self) -> &str {
        self.around.pointer(self.array)
    }

    /// Reads what is around the array and finds its elements.
    ///
    /// # Errors
    /// [`JsonError`] as of [`FieldTree::extract`], and when the array is broken.
    pub fn read(&self, document: &[u8], found: &mut ElementSlots) -> Result<Array, JsonError> {
        found.around.resize(self.around.len(), Slot::MISSING);
        found.elements.clear();
        self.around.extract(document, &mut found.around)?;
        let array = found.around[self.array];
        match (array.kind, document.get(array.start as usize)) {
            (Kind::Missing | Kind::Null, _) => return Ok(Array::Missing),
            (Kind::Container, Some(b'[')) => {}
            (_, _) => return Ok(Array::Other(array)),
        }
        let mut cursor = Cursor {
            bytes: document,
            at: array.start as usize + 1,
            missing: 0,
        };
        while let Some(element) = cursor.element(found.elements.is_empty())? {
            if found.elements.len() == ELEMENTS_MAX {
                return Ok(Array::TooLong);
            }
            found.elements.push(element);
        }
        Ok(Array::Found)
    }

    /// Fills `slots` (one per field of the tree) for one element of the event that was read.
    ///
    /// # Errors
    /// [`JsonError`] when the element is broken before the last field in use.
    pub fn fill(
        &self,
        document: &[u8],
        element: usize,
        found: &mut ElementSlots,
        slots: &mut [Slot],
    ) -> Result<(), JsonError> {
        let element = found.elements[element];
        for (slot, around) in self.around_slots.iter().zip(&found.around) {
            if let Some(slot) = slot {
                slots[*slot] = *around;
            }
        }
        if let Some(slot) = self.itself {
            slots[slot] = element;
        }
        found.within.clear();
        found.within.resize(self.within.len(), Slot::MISSING);
        if element.kind == Kind::Container && !self.within.is_empty() {
            let mut cursor = Cursor {
                bytes: document,
                at: element.start as usize,
                missing: self.within.len(),
            };
            cursor.container(&self.within.root, &mut found.within)?;
        }
        for (slot, within) in self.within_slots.iter().zip(&found.within) {
            slots[*slot] = *within;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kind and text of every field, for each element.
    fn exploded(pointer: &str, fields: &[&str], document: &str) -> Result<Vec<Vec<String>>, String> {
        let mut tree = FieldTree::new(false);
        for field in fields {
            tree.add(field);
        }
        let elements = Elements::new(&tree, pointer);
        let (mut found, mut slots) = (ElementSlots::default(), vec![Slot::MISSING; tree.len()]);
        let array = elements
            .read(document.as_bytes(), &mut found)
            .map_err(|error| error.to_string())?;
        if array != Array::Found {
            return Err(format!("{array:?}"));
        }
        let text = |slot: &Slot| match slot.kind {
            Kind::Missing => "-".to_owned(),
            _ => String::from_utf8_lossy(slot.text(document.as_bytes())).into_owned(),
        };
        let mut all = Vec::new();
        for element in 0..found.elements.len() {
            elements
                .fill(document.as_bytes(), element, &mut found, &mut slots)
                .map_err(|error| error.to_string())?;
            all.push(slots.iter().map(text).collect());
        }
        Ok(all)
    }

    #[test]
    fn each_element_stands_where_the_array_stood() {
        let fields = ["/id", "/a/list/x", "/a/list/y/0", "/a/list", "/a/other"];
        let document =
            r#"{"a":{"list":[{"y":[7],"x":1},  {"x":"two"} ,3,"s",[],null,{"x":{"z":1}}],"other":true},"id":9}"#;
        let found = exploded("/a/list", &fields, document).unwrap();
        let expected = [
            ["9", "1", "7", r#"{"y":[7],"x":1}"#, "true"],
            ["9", "two", "-", r#"{"x":"two"}"#, "true"],
            ["9", "-", "-", "3", "true"],
            ["9", "-", "-", "s", "true"],
            ["9", "-", "-", "[]", "true"],
            ["9", "-", "-", "null", "true"],
            ["9", r#"{"z":1}"#, "-", r#"{"x":{"z":1}}"#, "true"],
        ];
        assert_eq!(found, expected);
        assert_eq!(exploded("/a/list", &["/id"], r#"{"a":{"list":[ ]}}"#), Ok(Vec::new()));
        assert_eq!(
            exploded("/list", &["/list/1"], r#"{"list":[[1,2],[3]]}"#).unwrap(),
            [["2"], ["-"]]
        );
    }

    #[test]
    fn what_is_no_array_and_what_is_broken_is_said() {
        for (document, expected) in [
            (r#"{"b":1}"#, "Missing"),
            (r#"{"list":null}"#, "Missing"),
            (r#"{"list":{"x":1}}"#, "Other"),
            (r#"{"list":"[]"}"#, "Other"),
            (r#"{"list":[1,]}"#, "a value"),
            (r#"{"list":[1 2]}"#, "a comma or closing bracket"),
            (r#"{"list":[{"x":}]}"#, "a value"),
            (r#"{"list":[}"#, "a value"),
        ] {
            let error = exploded("/list", &["/list/x"], document).unwrap_err();
            assert!(error.contains(expected), "{document}: {error}");
        }
        let many = format!(r#"{{"list":[{}0]}}"#, "0,".repeat(ELEMENTS_MAX));
        assert_eq!(exploded("/list", &[], &many), Err("TooLong".to_owned()));
        let most = format!(r#"{{"list":[{}0]}}"#, "0,".repeat(ELEMENTS_MAX - 1));
        assert_eq!(exploded("/list", &[], &most).unwrap().len(), ELEMENTS_MAX);
    }
}
