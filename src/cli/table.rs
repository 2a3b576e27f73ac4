//! Columns of text for a terminal.

/// Lines of a table under a heading; cells are padded to their column's width.
pub fn render(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = heading.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        assert!(row.len() == widths.len(), "a row of {} in {} columns", row.len(), widths.len());
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, width) in cells.zip(&widths) {
            text += &format!("{cell:<width$}  ");
        }
        text.trim_end().to_string() + "\n"
    };
    let mut text = line(&mut heading.iter().copied());
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_line_up() {
        let rows = [vec!["n1".into(), "127.0.0.1:4000".into()], vec!["second".into(), "x".into()]];
        assert_eq!(
            super::render(&["NODE", "CLIENT"], &rows),
            "NODE    CLIENT\nn1      127.0.0.1:4000\nsecond  x\n"
        );
    }
}
