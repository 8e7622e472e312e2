use std::collections::HashSet;

use millrace_es::StreamId;
use millrace_kernel::{EntityId, Timestamp};

use super::{
    DynamoStore,
    control::query,
    keys,
    letters::read_letter,
    values::{get_text, number, store_error, text},
};
use crate::{
    dead_letters::{LetterFilter, MAX_REQUESTS_PER_CALL, Requested, Subject},
    error::StoreError,
    generation::{GenerationId, GenerationStatus, Lane},
    letters::{Action, DeadLetter, LetterStatus, RequestId},
    stores::Item,
};

impl DynamoStore {
    pub(crate) async fn letters(
        &self,
        projection: &str,
        filter: &LetterFilter,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let mut found = Vec::new();
        let mut generations = self.generations(projection).await?;
        generations.retain(|one| one.status != GenerationStatus::Retired);
        generations.sort_by_key(|one| one.id);
        for generation in generations {
            let items = query(
                self.client(),
                &self.control_table(),
                &keys::letters(generation.id),
                None,
            )
            .await?;
            let mut letters = items
                .iter()
                .map(|item| read_letter(projection, generation.id, item))
                .collect::<Result<Vec<_>, _>>()?;
            letters.retain(|letter| filter.matches(letter));
            letters
                .sort_by(|a, b| (&a.lane.context, a.position).cmp(&(&b.lane.context, b.position)));
            found.extend(letters);
        }
        found.truncate(limit);
        Ok(found)
    }

    /// A request for the letters of a stream.
    pub(super) fn open_request(&self, subject: &Subject, action: Action, id: &str) -> Item {
        let mut item = keys::open_request(subject.generation, id);
        item.extend([
            ("context".to_owned(), text(subject.lane.context.as_str())),
            ("partition".to_owned(), number(subject.lane.partition)),
            ("stream".to_owned(), text(subject.stream.as_str())),
            ("action".to_owned(), text(action.as_str())),
            (
                "requested_at".to_owned(),
                text(Timestamp::now().to_string()),
            ),
        ]);
        item
    }

    /// Whether a generation lacks events of a stream, as its dead letters say.
    pub(crate) async fn lacks_events(
        &self,
        generation: GenerationId,
        lane: &Lane,
        stream: &StreamId,
    ) -> Result<bool, StoreError> {
        let items = query(
            self.client(),
            &self.control_table(),
            &keys::letters(generation),
            Some(&keys::letter_prefix(lane, stream)),
        )
        .await?;
        let redriven = LetterStatus::Redriven.as_str();
        Ok(items.iter().any(|item| {
            get_text(item, "stream").is_ok_and(|text| text == stream.as_str())
                && get_text(item, "status").is_ok_and(|status| status != redriven)
        }))
    }

    pub(crate) async fn request(
        &self,
        projection: &str,
        filter: &LetterFilter,
        action: Action,
    ) -> Result<Vec<Requested>, StoreError> {
        let letters = self.letters(projection, filter, usize::MAX).await?;
        let mut met = HashSet::new();
        let mut made = Vec::new();
        for letter in letters {
            let subject = Subject {
                generation: letter.generation,
                lane: letter.lane,
                stream: letter.stream,
            };
            if made.len() == MAX_REQUESTS_PER_CALL || !met.insert(subject.clone()) {
                continue;
            }
            // A UUIDv7 rises with time: requests are done in the order they were made.
            let id = RequestId(EntityId::generate().to_string());
            let mut item = self.open_request(&subject, action, &id.0);
            item.extend(
                filter
                    .position
                    .map(|position| ("position".to_owned(), number(position))),
            );
            self.client()
                .put_item()
                .table_name(self.control_table())
                .set_item(Some(item))
                .send()
                .await
                .map_err(store_error)?;
            made.push(subject.requested(id, projection, action));
        }
        Ok(made)
    }

    pub(crate) async fn request_outcome(
        &self,
        request: &Requested,
    ) -> Result<Option<String>, StoreError> {
        let generation = GenerationId::new(request.generation);
        let found = self
            .client()
            .get_item()
            .table_name(self.control_table())
            .set_key(Some(keys::done_request(generation, &request.id.0)))
            .consistent_read(true)
            .send()
            .await
            .map_err(store_error)?;
        let item = found.item.unwrap_or_default();
        Ok(get_text(&item, "outcome").ok().map(str::to_owned))
    }
}
