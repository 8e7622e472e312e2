//! A receipt to be read and printed: one file that needs nothing else and runs nothing.

use std::fmt::{self, Write as _};

use super::Receipt;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:42em;margin:3em auto;\
padding:0 1em;color:#111}table{border-collapse:collapse;width:100%}th,td{text-align:left;\
padding:.4em .6em;border-bottom:1px solid #ccc}.amount{text-align:right;\
font-variant-numeric:tabular-nums}dt{font-weight:600}dd{margin:0 0 .6em;white-space:pre-line}";

/// Text in a page: what would be markup is written out.
struct Escaped<'a, T: ?Sized>(&'a T);

impl<T: fmt::Display + ?Sized> fmt::Display for Escaped<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.to_string().chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// The page of a receipt.
pub(super) fn page(receipt: &Receipt<'_>) -> String {
    let mut facts = String::new();
    let mut fact = |name: &str, value: Option<&dyn fmt::Display>| {
        if let Some(value) = value {
            facts.push_str("<dt>");
            facts.push_str(name);
            facts.push_str("</dt><dd>");
            facts.push_str(&Escaped(&value.to_string()).to_string());
            facts.push_str("</dd>\n");
        }
    };
    fact("Customer", Some(receipt.user_id));
    fact("Ordered", Some(&receipt.created_at));
    fact("Bought", receipt.purchase_dt.as_ref().map(as_display));
    fact("Order", receipt.description.as_ref().map(as_display));
    fact(
        "Shipping address",
        receipt.shipping_address.as_ref().map(as_display),
    );
    fact("Notes", receipt.notes.as_ref().map(as_display));
    let rows: String = receipt
        .items
        .iter()
        .map(|line| {
            format!(
                "<tr><td>{}</td><td class=\"amount\">{}</td><td class=\"amount\">{}</td></tr>\n",
                Escaped(line.description),
                line.quantity,
                line.unit_price
            )
        })
        .collect();
    let id = Escaped(receipt.order_id);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Receipt of order {id}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <h1>Receipt of order {id}</h1>\n<dl>\n{facts}</dl>\n\
         <table>\n<thead><tr><th>Item</th><th class=\"amount\">Quantity</th>\
         <th class=\"amount\">Unit price</th></tr></thead>\n<tbody>\n{rows}</tbody>\n\
         <tfoot><tr><th colspan=\"2\">Total</th><th class=\"amount\">{total} {currency}</th></tr>\
         </tfoot>\n</table>\n</body>\n</html>\n",
        total = receipt.total_amount,
        currency = receipt.currency,
    )
}

fn as_display<T: fmt::Display>(value: &T) -> &dyn fmt::Display {
    value
}

#[cfg(test)]
mod tests {
    use millrace_es::{Reaction as _, Recorded};

    use super::*;
    use crate::{reactions::receipts::OrderReceipts, testing};

    #[test]
    fn nothing_that_was_said_becomes_markup() {
        let event = testing::created();
        let mut order = OrderReceipts::decode(&event).unwrap().unwrap();
        let attack = "<script>alert('x')</script>\"&";
        order.items[0].description = attack.to_owned();
        order.shipping_address = Some(attack.to_owned());
        order.notes = Some(attack.to_owned());
        order.description = Some(attack.to_owned());
        let page = page(&Receipt::of(Recorded {
            event: &order,
            envelope: &event,
        }));
        assert!(!page.contains("<script"), "{page}");
        let escaped = "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&amp;";
        assert_eq!(page.matches(escaped).count(), 4, "{page}");
        assert!(page.contains("499.50 USD"), "{page}");
    }
}
