//! Dates as AWS writes them: `20150830T123600Z` in signatures, `2015-08-30T12:36:00Z` in answers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: u64 = 86_400;

/// `20150830T123600Z`.
pub(super) fn basic(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (year, month, day) = civil(seconds / DAY);
    let clock = seconds % DAY;
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// The time of `2015-08-30T12:36:00Z`, with or without a fraction of the second; `None` if it is no such date.
pub(super) fn extended(text: &str) -> Option<SystemTime> {
    let text = text.strip_suffix('Z').or_else(|| text.strip_suffix("+00:00"))?;
    let (date, clock) = text.split_once('T')?;
    let clock = clock.split('.').next()?;
    let numbers = |text: &str, separator: char| {
        let parts = text.split(separator).map(|part| part.parse().ok()).collect::<Option<Vec<u64>>>()?;
        <[u64; 3]>::try_from(parts).ok()
    };
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(clock, ':')?;
    let valid = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    valid.then(|| {
        let seconds = days(year, month, day) * DAY + hour * 3600 + minute * 60 + second;
        UNIX_EPOCH + Duration::from_secs(seconds)
    })
}

/// The days from 1970-01-01 to a date from then on, in the proleptic Gregorian calendar. A year begins in March here, so that
/// the day that some years lack is its last.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let before = year * 365 + year / 4 - year / 100 + year / 400;
    before + (153 * month + 2) / 5 + day - 1 - DAYS_BEFORE
}

/// The days from 0000-03-01 to 1970-01-01.
const DAYS_BEFORE: u64 = 719_468;

/// The other way round.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_BEFORE;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year;
    if month < 10 { (year, month + 3, day) } else { (year + 1, month - 9, day) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        // As `date -u -d @SECONDS` has them.
        for (seconds, date) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (951_868_800, "20000301T000000Z"),
            (1_440_938_160, "20150830T123600Z"),
            (1_735_689_599, "20241231T235959Z"),
            (4_107_542_399, "21000228T235959Z"),
            (4_107_542_400, "21000301T000000Z"),
        ] {
            assert_eq!(basic(at(seconds)), date);
        }
        for day in 0..60_000 {
            let (year, month, date) = civil(day);
            assert_eq!(days(year, month, date), day);
        }
    }

    #[test]
    fn dates_are_read() {
        assert_eq!(extended("2015-08-30T12:36:00Z"), Some(at(1_440_938_160)));
        assert_eq!(extended("2015-08-30T12:36:00.999Z"), Some(at(1_440_938_160)));
        assert_eq!(extended("2015-08-30T12:36:00+00:00"), Some(at(1_440_938_160)));
        for wrong in [
            "",
            "2015-08-30",
            "2015-13-30T12:36:00Z",
            "2015-08-30T12:36:00",
            "99999-08-30T12:36:00Z",
            "a-b-cT1:2:3Z",
        ] {
            assert_eq!(extended(wrong), None, "{wrong}");
        }
    }
}
