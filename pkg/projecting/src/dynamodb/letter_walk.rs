//! The way of a run through the waiting letters of its projection, a page at a time.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use millrace_es::StreamId;

use super::{
    DynamoStore, keys,
    letters::read_letter,
    values::{get_text, store_error, text},
};
use crate::{
    dead_letters::Subject,
    error::StoreError,
    generation::{GenerationId, Lane},
    letter_runs::{LetterRun, MAX_OPEN_STREAMS},
    letters::{Action, DeadLetter, LetterStatus},
    stores::Item,
};

/// Letters that are read at once.
const LETTERS_PER_PAGE: i32 = 200;

/// Pages that one push reads at most: letters that ended long ago are passed over.
pub(super) const MAX_PAGES_PER_PUSH: u32 = 20;

/// How far a run has gone through the letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The generation whose letters it is at; 0 before the first.
    pub(super) generation: i64,
    /// The sort key of the last letter it has looked at.
    pub(super) after: Option<String>,
    /// The lane and the stream it took last: the rest of its letters is passed over.
    pub(super) taken: Option<String>,
}

fn stream_key(lane: &Lane, stream: &StreamId) -> String {
    keys::letter_prefix(lane, stream)
}

impl DynamoStore {
    /// The generations that a run is about, oldest first.
    async fn generations_of(
        &self,
        run: &LetterRun,
        version: u32,
    ) -> Result<Vec<GenerationId>, StoreError> {
        let all = self.generations(&run.projection).await?;
        let mut found: Vec<GenerationId> = all
            .into_iter()
            .filter(|one| one.version == version && one.status.is_worked_on())
            .map(|one| one.id)
            .collect();
        found.sort_unstable();
        Ok(found)
    }

    /// Waiting letters of a generation after a sort key, a page of them, and where the next begins.
    async fn waiting_letters(
        &self,
        generation: GenerationId,
        prefix: Option<&str>,
        after: Option<&str>,
    ) -> Result<(Vec<(String, DeadLetter)>, Option<String>), StoreError> {
        let pk = keys::letters(generation);
        let from = after.map(|after| {
            Item::from([
                (keys::PK.to_owned(), text(pk.clone())),
                (keys::SK.to_owned(), text(after)),
            ])
        });
        let condition = match prefix {
            None => "pk = :pk",
            Some(_) => "pk = :pk AND begins_with(sk, :prefix)",
        };
        let answer = self
            .client()
            .query()
            .table_name(self.control_table())
            .consistent_read(true)
            .key_condition_expression(condition)
            .filter_expression("#t = :pending")
            .expression_attribute_names("#t", "status")
            .set_expression_attribute_values(Some(
                [
                    (":pk".to_owned(), text(pk)),
                    (":pending".to_owned(), text(LetterStatus::Pending.as_str())),
                ]
                .into_iter()
                .chain(prefix.map(|prefix| (":prefix".to_owned(), text(prefix))))
                .collect::<HashMap<_, AttributeValue>>(),
            ))
            .limit(LETTERS_PER_PAGE)
            .set_exclusive_start_key(from)
            .send()
            .await
            .map_err(store_error)?;
        let letters = answer
            .items()
            .iter()
            .map(|item| {
                let sk = get_text(item, keys::SK)?.to_owned();
                Ok((sk, read_letter("", generation, item)?))
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        let next = answer
            .last_evaluated_key()
            .and_then(|key| get_text(key, keys::SK).ok())
            .map(str::to_owned);
        Ok((letters, next))
    }

    /// How many letters a run takes of a stream: the named ones, or for a redrive all that wait;
    /// counted no further than `most`.
    pub(super) async fn count_taken(
        &self,
        run: &LetterRun,
        subject: &Subject,
        most: u64,
    ) -> Result<u64, StoreError> {
        let prefix = stream_key(&subject.lane, &subject.stream);
        let mut after: Option<String> = None;
        let mut taken: u64 = 0;
        while taken < most {
            let (page, next) = self
                .waiting_letters(subject.generation, Some(&prefix), after.as_deref())
                .await?;
            let counted = page.iter().filter(|(_, letter)| {
                letter.stream == subject.stream
                    && (run.action == Action::Redrive || run.selector.matches(letter))
            });
            taken += u64::try_from(counted.count()).unwrap_or(u64::MAX);
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        Ok(taken.min(most))
    }

    /// Goes on through the letters from a place, until it has found so many streams, looked at as
    /// many pages as are left, or come to the end. Says whether it came to the end.
    pub(super) async fn next_streams(
        &self,
        run: &LetterRun,
        version: u32,
        place: &mut Place,
        streams: usize,
        pages_left: &mut u32,
    ) -> Result<(Vec<Subject>, bool), StoreError> {
        let mut found = Vec::new();
        for generation in self.generations_of(run, version).await? {
            if generation.get() < place.generation {
                continue;
            }
            if generation.get() > place.generation {
                *place = Place {
                    generation: generation.get(),
                    ..Place::default()
                };
            }
            loop {
                if *pages_left == 0 {
                    return Ok((found, false));
                }
                *pages_left -= 1;
                let after = place.after.clone();
                let (page, next) = self
                    .waiting_letters(generation, None, after.as_deref())
                    .await?;
                for (sk, letter) in page {
                    if found.len() == streams {
                        return Ok((found, false));
                    }
                    place.after = Some(sk);
                    let stream = stream_key(&letter.lane, &letter.stream);
                    if place.taken.as_ref() == Some(&stream) || !run.selector.matches(&letter) {
                        continue;
                    }
                    place.taken = Some(stream);
                    found.push(Subject {
                        generation,
                        lane: letter.lane,
                        stream: letter.stream,
                    });
                }
                match next {
                    Some(next) => place.after = Some(next),
                    None => break,
                }
            }
        }
        Ok((found, true))
    }

    /// How many letters a run would take: a walk through all that wait, a page at a time.
    pub(super) async fn count_matched(
        &self,
        run: &LetterRun,
        version: u32,
    ) -> Result<u64, StoreError> {
        let mut place = Place::default();
        let mut matched: u64 = 0;
        loop {
            let mut pages_left = MAX_PAGES_PER_PUSH;
            let (found, at_end) = self
                .next_streams(run, version, &mut place, MAX_OPEN_STREAMS, &mut pages_left)
                .await?;
            for subject in &found {
                matched += self.count_taken(run, subject, u64::MAX).await?;
            }
            if at_end {
                return Ok(matched);
            }
        }
    }
}
