"""One run or several: data prepared, models trained, scored and saved."""
